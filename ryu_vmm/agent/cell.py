"""A task's place on a host: network namespace, veth pairs, port of the bridge, packet filter, folder for its socket.

Everything has a name that follows from the task's, so an agent that has lost its memory recognises it. The filter is a
``netdev`` table on each of the task's interfaces: closed, it drops every packet in both directions without a word, so
that the task's kernel answers nothing and asks nothing. Loopback stays open.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable
from ipaddress import ip_address, ip_interface
from pathlib import Path

from ..addresses import format_mac, parse_mac
from ..errors import InvalidInput
from . import host, inject
from .buffers import widen_switch
from .definition import Configuration, TaskDefinition
from .faults import HostError
from .tcp import Connection

__all__ = ["Cell"]

_SYSCTLS = {
    # Addresses are given, not negotiated: no duplicate detection, no routers to ask; nothing is said unasked.
    "net/ipv6/conf/all/disable_ipv6": 0,
    "net/ipv6/conf/default/disable_ipv6": 0,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    "net/ipv6/conf/default/router_solicitations": 0,
    "net/ipv6/conf/all/keep_addr_on_down": 1,
    "net/ipv6/conf/default/keep_addr_on_down": 1,
}
#: Of each interface's neighbors: asked for so often and so soon again, and so much waits for their answer. A task that
#: has just arrived asks before its NVE takes what it sends; what is queued then must neither be lost nor wait a second.
_NEIGHBORS = {"retrans_time_ms": 50, "mcast_solicit": 20, "unres_qlen_bytes": 4 << 20}
_RECORD = (
    "gone4 { type ipv4_addr . inet_service . ipv4_addr . inet_service",
    "gone6 { type ipv6_addr . inet_service . ipv6_addr . inet_service",
)


class Cell:
    """One task's place on this host; making and removing it again is safe at any time.

    Args:
        configuration: of the agent.
        name: of the task.
        pid: of its process, if that is known: by it the task is found from any mount namespace.
    """

    def __init__(self, configuration: Configuration, name: str, pid: int | None = None) -> None:
        self._configuration = configuration
        self.name = name
        self.namespace = configuration.namespaces + name
        self.folder = Path(configuration.run) / "tasks" / name
        self._pid = pid

    @property
    def mark(self) -> tuple[str, str]:
        """A variable of its processes' environment by which they are known, whatever else has been lost."""
        return "VMM_TASK_PLACE", f"{self._configuration.nve}/{self.namespace}"

    @property
    def socket_path(self) -> Path:
        """Where the task is told to listen for its agent."""
        return self.folder / "task.sock"

    @property
    def socket_found(self) -> Path:
        """Where the agent finds that socket: as the task sees it, if the agent is in another mount namespace."""
        path = self.socket_path
        return path if self._pid is None or path.exists() else Path(f"/proc/{self._pid}/root{path}")

    @property
    def exists(self) -> bool:
        """Whether its namespace is there, and known here by its name."""
        return host.is_named(self.namespace)

    def adopt(self, process: host.Process) -> None:
        """Have its namespace's name lead to where its process is, in this mount namespace too. Raises HostError."""
        self._pid = process.pid
        host.attach(self.namespace, process.pid)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    # --- making and removing ------------------------------------------------------------------------------------------
    def make(self, definition: TaskDefinition, closed: bool, mute: bool = False) -> None:
        """Make namespace, interfaces and filter anew, and plug nothing in; ``mute``: it says nothing."""
        self.remove(definition)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        host.run("ip", "netns", "add", self.namespace)
        try:
            with host.entered(self.namespace):
                for key, value in {**_SYSCTLS, **definition.sysctls}.items():
                    with contextlib.suppress(FileNotFoundError):  # of an interface that is still to come
                        Path("/proc/sys", key).write_text(str(value))
                host.ip("link set lo up")
            for interface in definition.interfaces:
                port = definition.port(interface)
                host.ip(
                    f"link add {port} mtu {interface.mtu} type veth peer name {interface.name} mtu {interface.mtu} "
                    f"address {interface.mac} netns {self.namespace}",
                    f"link set {port} promisc on up",
                )
            with host.entered(self.namespace):
                self._filter(definition, closed, closed or mute)
                self._address(definition)
            self._mute(definition)
        except BaseException:
            self.remove(definition)
            raise

    def _filter(self, definition: TaskDefinition, closed: bool, mute: bool) -> None:
        text = []
        for interface in definition.interfaces:
            rules = "".join(
                f"{ip} saddr . tcp sport . {ip} daddr . tcp dport @{name} counter drop\n"
                for ip, name in (("ip", "gone4"), ("ip6", "gone6"))
            )
            gate, door = ("drop;" if one else "" for one in (closed, mute))
            text.append(
                f"table netdev vmm-{interface.name} {{\n"
                f"set {_RECORD[0]}; flags timeout; }}\n"
                f"set {_RECORD[1]}; flags timeout; }}\n"
                f"chain gate {{ {gate} }}\n"
                f"chain door {{ {door} }}\n"
                f"chain in {{ type filter hook ingress device {interface.name} priority 0;\n{rules}jump gate; }}\n"
                f"chain out {{ type filter hook egress device {interface.name} priority 0; jump door; }}\n"
                "}\n"
            )
        host.nft("".join(text))

    def _address(self, definition: TaskDefinition) -> None:
        lines = []
        for interface in definition.interfaces:
            # The userspace datapath forwards what it reads: half-made checksums would go on the wire.
            host.run("ethtool", "-K", interface.name, "tx", "off")
            for family in ("ipv4", "ipv6"):
                for key, value in _NEIGHBORS.items():
                    Path("/proc/sys/net", family, "neigh", interface.name, key).write_text(str(value))
            lines.append(f"link set {interface.name} up")
            for text in interface.addresses:
                nodad = " nodad" if ip_interface(text).version == 6 else ""
                lines.append(f"addr add {text} dev {interface.name}{nodad}")
            for route in interface.routes:
                via = "" if route.via is None else f" via {route.via}"
                six = "-6 " if ":" in f"{route.to}{route.via}" else ""
                lines.append(f"{six}route replace {route.to}{via} dev {interface.name}{' onlink' * route.onlink}")
        for four, batch in ((True, [x for x in lines if not x.startswith("-6 ")]),
                            (False, [x[3:] for x in lines if x.startswith("-6 ")])):
            if batch:
                host.run("ip", *([] if four else ["-6"]), "-batch", "-", stdin="\n".join(batch) + "\n")

    def _mute(self, definition: TaskDefinition) -> None:
        """The host's ends say nothing of their own: no addresses, no router solicitations."""
        for interface in definition.interfaces:
            with contextlib.suppress(OSError):
                Path(f"/proc/sys/net/ipv6/conf/{definition.port(interface)}/disable_ipv6").write_text("1")

    def remove(self, definition: TaskDefinition | None = None) -> None:
        """End what runs there and remove it all. The port goes first, so that the bridge never names what is not."""
        if definition is not None:
            self.unplug(definition)
        for pid in {*host.processes_in(self.namespace), *host.marked("=".join(self.mark))}:
            process = host.Process.of(pid)
            if process is not None and pid != os.getpid():
                process.end(0)
        if self.exists:
            host.run("ip", "netns", "del", self.namespace)  # and its veth ends, and with them the host's
        with contextlib.suppress(OSError):
            host.path_of(self.namespace).unlink()  # what another mount namespace has left of it
        if definition is not None:
            for interface in definition.interfaces:
                with contextlib.suppress(HostError):  # it has gone with the namespace, as a rule
                    host.run("ip", "link", "del", definition.port(interface))
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- the bridge ---------------------------------------------------------------------------------------------------
    def _vsctl(self, *words: str) -> str:
        return host.run("ovs-vsctl", f"--db={self._configuration.ovsdb}", "--timeout=20", *words)

    def plug(self, definition: TaskDefinition) -> None:
        """Make its host ends ports of the bridge: for the NVA, the task is there from now on. Raises HostError.

        Their links have been up for a while. A link that comes up just now would have Open vSwitch's userspace datapath
        read its routes anew, and drop for some milliseconds what it sends by tunnel.
        """
        words: list[str] = []
        for interface in definition.interfaces:
            port = definition.port(interface)
            mark = f"external_ids:vmm-task={self.name}"
            words += ["--", "--may-exist", "add-port", self._configuration.bridge, port]
            words += ["--", "set", "Interface", port, mark]
        self._vsctl(*words[1:])
        widen_switch(self._configuration.ovsdb)

    def unplug(self, definition: TaskDefinition) -> None:
        """Take its ports out of the bridge. Raises HostError."""
        words: list[str] = []
        for interface in definition.interfaces:
            words += ["--", "--if-exists", "del-port", self._configuration.bridge, definition.port(interface)]
        self._vsctl(*words[1:])

    def plugged(self, definition: TaskDefinition) -> bool:
        """Whether all its ports are ports of the bridge."""
        there = self._vsctl("list-ports", self._configuration.bridge).split()
        return all(definition.port(one) in there for one in definition.interfaces)

    def neighbors(self) -> bytes:
        """Whom the task's kernel knows on its links, as JSON: its next one need not ask first."""
        with host.entered(self.namespace):
            return host.run("ip", "-json", "neigh", "show").encode()

    def learn(self, definition: TaskDefinition, neighbors: bytes) -> None:
        """Have the task's kernel know them. Whatever is not a neighbor on one of its interfaces is passed over."""
        names = {one.name for one in definition.interfaces}
        lines = []
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, InvalidInput):
            for row in json.loads(neighbors)[:1024]:
                if row.get("dev") in names and "lladdr" in row:
                    address, mac = ip_address(row["dst"]), format_mac(parse_mac(row["lladdr"]))
                    lines.append(f"neigh replace {address} lladdr {mac} dev {row['dev']} nud stale")
        if lines:
            with host.entered(self.namespace), contextlib.suppress(HostError):
                host.ip(*lines)

    def received(self, definition: TaskDefinition) -> int:
        """Packets that have come to the task so far."""
        # What /proc/net shows is the calling thread's namespace; /sys shows that of whoever mounted it.
        ports = {definition.port(one) for one in definition.interfaces}
        total = 0
        for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
            name, _, counts = line.partition(":")
            if name.strip() in ports:
                total += int(counts.split()[9])  # packets that the host's end has transmitted
        return total

    # --- the filter ---------------------------------------------------------------------------------------------------
    def defer(self, definition: TaskDefinition) -> None:
        """From now on drop requests for new connections: half-made ones cannot be carried, and are soon tried again."""
        self._rules(definition, "add rule {0} gate tcp flags & (syn | ack) == syn counter drop\n")

    def close(self, definition: TaskDefinition) -> None:
        """From now on nothing reaches the task and nothing leaves it."""
        # Rules in chains that are there: to change a hook's policy takes the kernel five times as long.
        self._rules(definition, "insert rule {0} gate counter drop\ninsert rule {0} door counter drop\n")

    def let_resets_out(self, definition: TaskDefinition) -> None:
        """Of a closed cell: TCP segments with RST may leave it."""
        self._rules(definition, "insert rule {0} door tcp flags & rst == rst counter accept\n")

    def speak(self, definition: TaskDefinition) -> None:
        """Of a mute cell: what it sends leaves it from now on. Quicker than ``open``."""
        self._rules(definition, "insert rule {0} door accept\n")

    def open(self, definition: TaskDefinition) -> None:
        """Undo ``close`` and ``defer``."""
        self._rules(definition, "flush chain {0} gate\nflush chain {0} door\n")

    def _rules(self, definition: TaskDefinition, commands: str) -> None:
        self._nft("".join(commands.format(f"netdev vmm-{one.name}") for one in definition.interfaces))

    def remember(self, definition: TaskDefinition, connections: Iterable[Connection], seconds: float) -> None:
        """Note connections that have left: what still comes for them is dropped and counted, for so long."""
        rows: dict[str, list[str]] = {"gone4": [], "gone6": []}
        for one in connections:
            local, remote = inject.unmapped(one.local[0]), inject.unmapped(one.remote[0])
            rows["gone6" if local.version == 6 else "gone4"].append(
                f"{remote} . {one.remote[1]} . {local} . {one.local[1]} timeout {max(1, int(seconds))}s"
            )
        text = "".join(
            f"add element netdev vmm-{interface.name} {name} {{ {', '.join(found)} }}\n"
            for interface in definition.interfaces for name, found in rows.items() if found
        )
        if text:
            self._nft(text)

    def _nft(self, text: str) -> None:
        with host.entered(self.namespace):
            host.nft(text)


