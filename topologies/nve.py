"""The NVE: one hypervisor's edge, with Open vSwitch daemons of its own in a namespace of its own."""
# ruff: noqa: N803 (Mininet's names)

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mininet.node import Switch

from ryu_vmm.agent.buffers import widen
from ryu_vmm.agent.faults import HostError
from ryu_vmm.edge.host import Host
from ryu_vmm.edge.plan import Edge, Step, Tls, Uplink
from topologies import netns
from topologies.errors import CommandError, TopologyError
from topologies.node import NamespaceNode
from topologies.rundir import wait_until
from topologies.underlay import MTU

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
CONTROL_PORT = 6653  # on the NVE's own loopback; the relay leads it to the NVA
TUNNEL_PORT = "vxlan"
TUNNEL_OFPORT, ROUTED_OFPORT, ILA_OFPORT = 1, 2, 3
ROUTED = "gre"  # the port for tunnels without Ethernet headers, and its type
ILA = "ila"  # the patch port to br-ext
FIRST_VM_OFPORT = 10


def kernel_datapath() -> bool:
    """Is Open vSwitch's kernel module there, loaded or loadable?"""
    if os.path.isdir("/sys/module/openvswitch"):
        return True
    try:
        netns.run(["modprobe", "--quiet", "openvswitch"])
    except TopologyError:
        return False
    return os.path.isdir("/sys/module/openvswitch")


@dataclass(frozen=True)
class _Inside(Host):
    """A host that is a namespace."""

    namespace: str = ""

    def execute(self, words: list[str]) -> str:
        return super().execute(netns.inside(self.namespace, words))


class NVE(NamespaceNode, Switch):  # type: ignore[misc]
    """A hypervisor: `br-ext` carries the underlay link and address, `br-int` is the overlay edge.

    `ipv4` and `ipv6` are the underlay addresses with prefix length (either may be None); `datapath` is
    "system", "netdev" or None for what the machine has. For layer 3: `routed` is "gre" where `br-int` has a port for
    tunnels without Ethernet headers. `locator` is the /64 whose packets `br-ext` hands to `br-int` (ILA), through a
    pair of patch ports. `router` is where the underlay's router is, as an address of each family that the NVE has;
    without one the NVEs are neighbors.
    """

    def __init__(
        self, name: str, ipv4: str | None = None, ipv6: str | None = None, datapath: str | None = None,
        routed: str | None = None, locator: str | None = None, router: Sequence[str] = (), **params: Any,
    ) -> None:
        if routed not in (None, ROUTED):
            raise TopologyError(f"{name}: routed tunnels are of type {ROUTED} or None, not {routed!r}")
        if locator and not ipv6:
            raise TopologyError(f"{name}: a locator needs an underlay with IPv6")
        self.controlIntf = None
        self.ipv4, self.ipv6 = ipv4, ipv6
        self.routed, self.locator, self.router = routed, locator, tuple(router)
        self.datapath = datapath or ("system" if kernel_datapath() else "netdev")
        super().__init__(name, **params)
        self.folder = self.lab.run.folder(name)
        self._env = {"OVS_RUNDIR": self.folder, "OVS_LOGDIR": self.folder, "OVS_DBDIR": self.folder}
        self.ports_wanted: dict[str, int] = {}  # VM ports of br-int: name -> OpenFlow port number
        self._next_ofport = FIRST_VM_OFPORT
        self._numbering = threading.Lock()
        self._daemons: list[Any] = []
        self._controlled: tuple[str, Tls | None] | None = None  # where the NVA is, and how it is spoken to
        self.running = False

    def sysctls(self) -> dict[str, object]:
        # The hypervisor's side of a VM's tap must be mute: no router solicitations, no multicast reports
        return {"net/ipv6/conf/default/disable_ipv6": 1, "net/ipv6/conf/default/accept_dad": 0}

    # --- Open vSwitch ---------------------------------------------------------------------------------

    @property
    def database(self) -> str:
        """The database's address, as `ovs-vsctl --db=` wants it."""
        return f"unix:{self.folder}/db.sock"

    def vsctl(self, *words: str, timeout: int = 20) -> str:
        """Run ovs-vsctl on this NVE's database; it returns when vswitchd has done what was asked.

        Raises CommandError.
        """
        return netns.run(["ovs-vsctl", f"--db={self.database}", f"--timeout={timeout}", *words])

    def ofctl(self, command: str, *words: str, stdin: str | None = None) -> str:
        """Run ovs-ofctl (OpenFlow 1.3) on `br-int`; the bridge's name is put after the command."""
        target = f"unix:{self.folder}/br-int.mgmt"
        return netns.run(["ovs-ofctl", "-O", "OpenFlow13", command, target, *words], stdin=stdin)

    def appctl(self, *words: str) -> str:
        """Run ovs-appctl on this NVE's vswitchd."""
        return netns.run(["ovs-appctl", "-t", f"{self.folder}/vswitchd.ctl", *words])

    def dpctl(self, *args: str) -> str:
        """Mininet's name for `ofctl`, as the CLI's `dpctl` uses it."""
        return self.ofctl(*args)

    def _start_daemons(self) -> None:
        conf = f"{self.folder}/conf.db"
        netns.run(["ovsdb-tool", "create", conf, SCHEMA])
        self._daemons.append(self.lab.run.spawn(
            ["ovsdb-server", conf, f"--remote=p{self.database}", f"--unixctl={self.folder}/ovsdb.ctl",
             f"--log-file={self.folder}/ovsdb.log", "-vconsole:off"],
            namespace=self.namespace, env=self._env,
        ))
        wait_until(self._database_answers, 10, f"{self.name}: ovsdb-server")
        # one handler and one revalidator: the default is one per core and more, times the number of NVEs
        self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".",
                   "other_config:n-handler-threads=1", "other_config:n-revalidator-threads=1")
        self._start_switch()

    def _start_switch(self) -> None:
        only_user = ["--disable-system"] if self.datapath == "netdev" else []
        self._daemons.append(self.lab.run.spawn(
            ["ovs-vswitchd", self.database, f"--unixctl={self.folder}/vswitchd.ctl",
             f"--log-file={self.folder}/vswitchd.log", "-vconsole:off", *only_user],
            namespace=self.namespace, env=self._env,
        ))

    @property
    def switch_pid(self) -> int:
        """The process of its ovs-vswitchd."""
        return int(self._daemons[-1].pid)

    def crash(self) -> None:
        """Kill ovs-vswitchd as a crash would: nothing is forwarded, and all flows are gone, until `restart`."""
        switch = self._daemons.pop()
        switch.kill()
        self.lab.run.end(switch)

    def restart(self) -> None:
        """Start ovs-vswitchd again after `crash`, or stop and start it; returns when its ports are back."""
        if len(self._daemons) > 1:
            self.lab.run.end(self._daemons.pop())
        self._start_switch()
        # the crashed one's answers are still in the database: ask for a change, which only a living switch confirms
        self.vsctl("set", "Bridge", "br-int", f"external_ids:restarted={time.monotonic_ns()}")
        self._widen()
        for step in self.edge.address_steps():
            self._do(step)
        if self.locator:
            self._do(self.edge.locator_flow())
        self._await_routes()
        self._control()

    def _database_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(f"{self.folder}/db.sock") == 0

    def start(self, controllers: Sequence[Any]) -> None:
        """Start the daemons, build both bridges, and connect `br-int` to the controllers through the relay."""
        self._start_daemons()
        for step in self.edge.steps():
            self._do(step)
        words = [word for port in self.ports_wanted.items() for word in ("--", *self._add_port_words(*port))]
        if words:
            self.vsctl(*words[1:])
        self.running = True
        self._widen()
        self._await_routes()
        self.connect(controllers)

    @property
    def edge(self) -> Edge:
        """What the NVE is, without a controller: the relay says where that is."""
        ofports = {TUNNEL_PORT: TUNNEL_OFPORT, ROUTED: ROUTED_OFPORT, ILA: ILA_OFPORT}
        return Edge(
            self.name, (), self.dpid, self.ipv4, self.ipv6, datapath_type=self.datapath, tunnel_port=TUNNEL_PORT,
            routed_port=self.routed, locator=self.locator, ila_port=ILA, mtu=MTU,
            uplink=Uplink("und0", "br-ext", self.router), ofports=ofports,
        )

    @property
    def host(self) -> Host:
        """Where commands of its host go: its namespace and its database."""
        return _Inside(self.database, self.namespace)

    def _do(self, step: Step) -> None:
        try:
            self.host.do(step)
        except HostError as exc:
            raise CommandError(str(exc)) from exc

    def _await_routes(self) -> None:
        # vswitchd learns addresses and routes by netlink; until it has, tunnel packets have nowhere to go
        for address in filter(None, (self.ipv4, self.ipv6, *self.router)):
            bare = address.partition("/")[0]
            wait_until(lambda want=bare: want in self.appctl("ovs/route/show"), 10,
                       f"{self.name}: the underlay address in OVS's routes")

    def layer3(self) -> dict[str, Any]:
        """What the NVA is told of the NVE besides its underlay addresses; nothing where it has nothing for layer 3."""
        found: dict[str, Any] = {}
        if self.routed:
            found["routed_port"] = ROUTED
        if self.locator:
            found.update(locator=self.locator, ila_port=ILA)
            found["next_hop"] = next((router for router in self.router if ":" in router), None)
        return found

    def reaches(self, other: NVE) -> bool:
        """Whether the underlay carries packets to another NVE, in every family that both have.

        The kernel tells of new links' carriers once a second at most, and until then a bridge does not forward to them.
        """
        shared = ((self.ipv4, other.ipv4), (self.ipv6, other.ipv6))
        for there in (theirs.partition("/")[0] for mine, theirs in shared if mine and theirs):
            # Asked afresh: for a neighbor that it has just failed to find, the kernel asks again only after a second.
            netns.ip_batch(self.namespace, "neigh flush dev br-ext")
            ping = ["ping", "-c", "1", "-W", "0.2", there]
            if subprocess.run(netns.inside(self.namespace, ping), capture_output=True, check=False).returncode:
                return False
        return True

    def connect(self, controllers: Sequence[Any]) -> None:
        """Point `br-int` at the first controller, by way of the relay; no controller: leave it alone."""
        if not controllers:
            return
        host, port = controllers[0].IP(), int(controllers[0].port or 6653)
        self.lab.relay.ask(
            "listen", nve=self.name, namespace=self.namespace, port=CONTROL_PORT,
            host=socket.gethostbyname(host) if ":" not in host else host, to_port=port,
        )
        self._controlled = f"tcp:127.0.0.1:{CONTROL_PORT}", None
        self._control()

    def _control(self) -> None:
        """Have the bridge controlled as it was told: said again when vswitchd has begun anew."""
        if self._controlled is not None:
            target, tls = self._controlled
            for step in replace(self.edge, controllers=(target,), tls=tls).controller_steps():
                self._do(step)

    def secure(self, key: str, certificate: str, authority: str) -> None:
        """Have `br-int` speak TLS with the NVA, with these PEM files, from its next connection on, which is now."""
        target = f"ssl:127.0.0.1:{CONTROL_PORT}"
        self._controlled = target, Tls(key, certificate, authority)
        if self.vsctl("get-controller", "br-int").strip() == target:  # it would keep the connection that it has
            self.vsctl("set-ssl", key, certificate, authority)
            self.cut()
            self.restore()
            return
        self._control()

    def connected(self) -> bool:
        """Is `br-int` connected, and has it answered the NVA's first questions?

        Mininet's --wait and --test ask this. It is read from the relay: OVS's own `is_connected` lags by up
        to 5 s.
        """
        counts = self.lab.relay.ask("counts").get(self.name)
        return counts is not None and counts["greeted"] > 0 and not counts["cut"]

    def cut(self, how: str = "close") -> None:
        """Cut the control channel: `close`, `stall`, `stall-switch` or `stall-nva` (see relay.py)."""
        self.lab.relay.ask("cut", nve=self.name, how=how)

    def restore(self) -> None:
        """Undo `cut`; OVS comes back within its back-off of 1 s."""
        self.lab.relay.ask("restore", nve=self.name)

    # --- ports ----------------------------------------------------------------------------------------

    def _add_port_words(self, port: str, number: int) -> list[str]:
        return ["add-port", "br-int", port, "--", "set", "Interface", port, f"ofport_request={number}"]

    def plug(self, port: str, ofport: int | None = None) -> int:
        """Add an interface of the namespace to `br-int`; returns the OpenFlow port number asked for."""
        with self._numbering:  # several VMs may come at once
            number = ofport or self._next_ofport
            self._next_ofport = max(self._next_ofport, number) + 1
            self.ports_wanted[port] = number
        if self.running:
            self.vsctl(*self._add_port_words(port, number))
            self._widen()
        return number

    def _widen(self) -> None:
        if self.datapath == "netdev":
            widen(self._daemons[-1].pid)

    def unplug(self, port: str) -> None:
        """Take an interface out of `br-int`."""
        self.ports_wanted.pop(port, None)
        if self.running:
            self.vsctl("--if-exists", "del-port", "br-int", port)

    def ofport(self, port: str) -> int:
        """The OpenFlow number of a port. Raises TopologyError where OVS could not open it."""
        number = int(self.vsctl("get", "Interface", port, "ofport").strip())
        if number < 0:
            raise TopologyError(f"{self.name}: {self.vsctl('get', 'Interface', port, 'error').strip()}")
        return number

    def flows(self) -> list[str]:
        """The flows of `br-int` without their counters, sorted."""
        text = self.ofctl("dump-flows", "--no-stats")
        return sorted(line.strip() for line in text.splitlines() if "actions=" in line)

    def stop(self, deleteIntfs: bool = True) -> None:
        """End the daemons; what they kept is in the run directory and goes with it."""
        self.running = False
        for daemon in reversed(self._daemons):
            self.lab.run.end(daemon)
        self._daemons.clear()
