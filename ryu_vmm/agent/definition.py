"""Files that people write: a task's definition and an agent's configuration (JSON or YAML), checked by pydantic."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, Field, model_validator

from ..checking import check
from ..errors import InvalidInput
from ..fields import Input, Mac, Name, PortName, distinct

__all__ = ["Configuration", "Interface", "Limits", "Route", "TaskDefinition", "Times", "Tls", "load"]

_T = TypeVar("_T", bound=Input)


def _interface(text: str) -> str:
    return str(ip_interface(text))


def _destination(text: str) -> str:
    return text if text == "default" else str(ip_network(text))


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("not an absolute path")
    return text


Address = Annotated[str, AfterValidator(_interface), Field(description="address/length", examples=["10.0.0.9/24"])]
Destination = Annotated[str, AfterValidator(_destination), Field(description="prefix, or default")]
Hop = Annotated[str, AfterValidator(lambda text: str(ip_address(text)))]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class Route(Input):
    """A route of a task. With ``onlink`` its gateway need not be in a prefix of the task's: layer 3 networks."""

    to: Destination = "default"
    via: Hop | None = Field(default=None, description="address of the gateway")
    onlink: bool = Field(default=False, description="the gateway need not be in a prefix of the task's")


class Interface(Input):
    """A network interface of a task: one end of a veth pair whose other end is a port of the host's bridge."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,14}$", description="as the task sees it")] = "eth0"
    network: Name = Field(description="the NVA's network that it is in")
    mac: Mac
    addresses: Annotated[
        list[Address], Field(max_length=64, description="each with its length: 10.0.0.9/24"), AfterValidator(distinct)
    ] = []
    routes: Annotated[list[Route], Field(max_length=256, description="the task's")] = []
    mtu: Annotated[int, Field(ge=576, le=9000, description="bytes")] = 1450
    port: PortName | None = Field(default=None, description="name of the port at every NVE; default: from the task's")
    dns: str | None = Field(default=None, description="name that follows its addresses, where the NVA publishes names")

    def of_family(self, version: int) -> list[str]:
        """Its addresses of a family, without length."""
        return [str(one.ip) for one in map(ip_interface, self.addresses) if one.version == version]


class TaskDefinition(Input):
    """A task: what to run, and where in the network."""

    name: Name = Field(description="of the task, and of the VM that it is to the NVA")
    driver: Literal["cooperating", "criu"] = Field(default="cooperating", description="how its state is taken")
    command: Annotated[list[str], Field(min_length=1, description="program and arguments")]
    environment: dict[str, str] = Field(default={}, description="variables beside the agent's own")
    directory: AbsolutePath = Field(default="/", description="where it starts")
    user: int | str | None = Field(default=None, description="who it runs as; default: as the agent")
    interfaces: Annotated[list[Interface], Field(min_length=1, max_length=8, description="its network interfaces")]
    sysctls: dict[Annotated[str, Field(pattern=r"^net(/[a-z0-9_][a-z0-9_.-]*)+$")], int | str] = Field(
        default={}, description="set in its namespace, by path below /proc/sys: net/ipv4/ip_forward"
    )
    restart: bool = Field(default=True, description="begin anew when its process has ended")
    register_vm: bool = Field(default=True, description="register it with the NVA when it is run first")

    @model_validator(mode="after")
    def _distinct_names(self) -> TaskDefinition:
        distinct([one.name for one in self.interfaces])
        distinct([self.port(one) for one in self.interfaces])
        return self

    def port(self, interface: Interface) -> str:
        """The name of an interface's port: the same at every NVE, 15 characters at most."""
        if interface.port is not None:
            return interface.port
        plain = f"tk-{self.name}" if interface.name == self.interfaces[0].name else f"tk-{self.name}.{interface.name}"
        if len(plain) <= 15:
            return plain
        return "tk-" + hashlib.sha256(plain.encode()).hexdigest()[:12]

    def vm(self, nve: str) -> dict[str, Any]:
        """What registers it with the NVA, at an NVE."""
        interfaces = []
        for one in self.interfaces:
            row = {
                "name": one.name, "network": one.network, "mac": one.mac, "nve": nve, "port": self.port(one),
                "ipv4": one.of_family(4), "ipv6": one.of_family(6),
            }  # fmt: skip
            if one.dns is not None:
                row["dns"] = one.dns
            interfaces.append(row)
        return {"name": self.name, "interfaces": interfaces}

    def readdressed(self, changes: Mapping[str, str]) -> TaskDefinition:
        """The same task with other addresses (old without length to new), of the same lengths."""
        interfaces = []
        for one in self.interfaces:
            addresses = []
            for text in one.addresses:
                old = ip_interface(text)
                new = changes.get(str(old.ip))
                addresses.append(text if new is None else f"{new}/{old.network.prefixlen}")
            interfaces.append(one.model_copy(update={"addresses": addresses}))
        return self.model_copy(update={"interfaces": interfaces})


class Tls(Input):
    """Certificates that agents show each other; without them they share a secret."""

    cert: AbsolutePath = Field(description="PEM file; its DNS name is the agent's NVE")
    key: AbsolutePath = Field(description="PEM file")
    ca: AbsolutePath = Field(description="the authority of the other agents' certificates; name it for agents alone")


class Limits(Input):
    """What an agent takes from another one."""

    image: Annotated[int, Field(ge=1 << 16, le=1 << 40)] = Field(default=1 << 30, description="bytes of an image")
    arriving: Annotated[int, Field(ge=1, le=1024)] = Field(default=16, description="tasks that arrive at one time")


class Times(Input):
    """How long an agent waits, in seconds."""

    prepared: Seconds = Field(default=30.0, description="for the NVA to prepare a move and put its redirect in force")
    quiet: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.02, description="the task runs on after that until so long nothing has reached it, 1 s at most"
    )
    peer: Seconds = Field(default=10.0, description="for each answer of the other agent")
    bound: Seconds = Field(default=2.0, description="for the NVA to confirm a port of a task that has arrived")
    activated: Seconds = Field(default=10.0, description="for the task to run there, else the move is called off")
    task: Seconds = Field(default=10.0, description="for each answer of a task's process")
    ending: Annotated[float, Field(ge=0, le=3600)] = Field(default=5.0, description="from SIGTERM to SIGKILL")
    record: Seconds = Field(default=60.0, description="that connections that left are remembered and not answered")
    poll: Seconds = Field(default=0.5, description="between two looks at the NVA's moves")


class Configuration(Input):
    """An agent's configuration."""

    nve: Name = Field(description="the NVE that this host is")
    nva: str = Field(default="http://127.0.0.1:8080", description="the NVA's REST interface")
    token_file: AbsolutePath | None = Field(
        default=None, description="file whose first line is the token that says who the agent is to the NVA; mode 0600"
    )
    plaintext: bool = Field(default=False, description="send the token over plain http beyond this machine, too")
    nva_cert: AbsolutePath | None = Field(default=None, description="PEM file: the agent's certificate for the NVA")
    nva_key: AbsolutePath | None = Field(default=None, description="PEM file: its key, where that is not in nva_cert")
    nva_cacert: AbsolutePath | None = Field(
        default=None, description="PEM file: the authority of the NVA's certificate; default: those of the system"
    )
    state: AbsolutePath = Field(
        default="/var/lib/ryu_vmm/agent", description="what must outlive a reboot: records and images of its tasks"
    )
    run: AbsolutePath = Field(
        default="/run/ryu_vmm/agent", description="sockets of the agent and its tasks; `vmm-agent --run` names it"
    )
    ovsdb: str = Field(default="unix:/run/openvswitch/db.sock", description="as ovs-vsctl --db takes it")
    bridge: PortName = Field(default="br-int", description="the bridge that is the NVE")
    listen: str = Field(description="underlay address where other agents connect")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=7420, description="TCP port of `listen`")
    peers: dict[Name, str] = Field(
        default={}, description="NVE to ADDRESS:PORT of its agent; default: the NVE's underlay address, the same port"
    )
    tls: Tls | None = Field(default=None, description="certificates that agents show each other; or `secret_file`")
    secret_file: AbsolutePath | None = Field(default=None, description="32 bytes or more that all agents share")
    namespaces: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = Field(
        default="task-", description="what the names of its tasks' namespaces begin with"
    )
    criu: str = Field(default="criu", description="the command `criu`, for tasks with that driver")
    limits: Limits = Field(default=Limits(), description="what it takes from other agents")
    times: Times = Field(default=Times(), description="how long it waits")

    @model_validator(mode="after")
    def _believed(self) -> Configuration:
        if (self.tls is None) == (self.secret_file is None):
            raise ValueError("agents must know each other: give either tls or secret_file")
        if self.nva_key is not None and self.nva_cert is None:
            raise ValueError("nva_key is of no use without nva_cert")
        return self


def load(wanted: type[_T], path: str | Path) -> _T:
    """A model from a JSON or YAML file. Raises InvalidInput, which names the file and every wrong field."""
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise InvalidInput(f"{path}: {e.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise InvalidInput(f"{path}: neither JSON nor YAML: {e}") from None
    try:
        return check(wanted, given)
    except InvalidInput as e:
        raise InvalidInput(f"{path}: {e.message}", field=e.field, **e.details) from None
