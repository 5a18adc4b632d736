"""The stage: overlay, NVA, name server and agents, all of it in folders and namespaces that go with the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from topologies import OverlayNet
from topologies.nameserver import NameServer
from topologies.rundir import command_of, start_time
from topologies.tasking import Agents, StreamTask

from ..machine import Port, ovs_version
from ..narrator import Narrator
from ..overlay import OPENFLOW, REST, nva_at, taken
from . import cast

QUIET = 1.0  # seconds of silence before a redirect is removed; the least that the NVA takes
RATE = 20.0  # records per second on each TCP connection, both ways


@dataclass
class Stage:
    """What the chapters play on. `tasks`: those that agents run, by name."""

    net: OverlayNet
    names: NameServer
    agents: Agents
    tasks: dict[str, StreamTask]

    def note(self, name: str, nve: str) -> None:
        """Record a task's process at an NVE, so that `tools/clean` finds it should we be killed."""
        row = self.agents[nve].tasks().get(name)
        if row is not None and row["pid"] is not None:
            run = self.net.lab.run
            run.note(pid=row["pid"], started=start_time(row["pid"]), command=command_of(row["pid"]))


@contextmanager
def overlay(underlay: str, narrator: Narrator) -> Iterator[tuple[OverlayNet, NameServer]]:
    """NVEs, guests, NVA and name server, started and connected; nothing is registered yet. Raises TopologyError."""
    openflow, rest = Port(OPENFLOW), Port(REST)
    with ExitStack() as stack:
        stack.callback(rest.release)
        stack.callback(openflow.release)
        outer = "IPv4 and IPv6" if underlay == "both" else "IPv6"
        narrator.say(f"Building an overlay of layer 3: 3 edges (NVEs) over {outer}, guests, a name server, and the NVA")
        # read when it starts; by then the name server has its port
        options: dict[str, object] = {"quiet_time": QUIET, "dns_zones": cast.ZONE}
        net = OverlayNet(topo=cast.topology(underlay), controller=nva_at(openflow, rest, options))
        stack.callback(net.stop)
        names = NameServer((cast.ZONE,), folder=net.lab.run.folder("named"))
        names.start()
        stack.callback(names.close)
        options.update(dns_servers=names.address, dns_key_file=names.key_file)
        net.start()
        kind = "userspace" if net.nves[0].datapath == "netdev" else "kernel"
        narrator.say(f"It is up: real Open vSwitch {ovs_version()} ({kind} datapath), each NVE, guest and task in a "
                     "network namespace of its own")
        net.wait_for_nva()
        narrator.detail("NVA", f"ryu-manager ryu_vmm: OpenFlow 127.0.0.1:{openflow.number}"
                        f"{taken(openflow, OPENFLOW)}, REST {net.need_rest().base}/v1{taken(rest, REST)}")
        narrator.detail("name server", f"BIND, 127.0.0.1:{names.port}; the NVA keeps {cast.ZONE} up to date "
                        "(RFC 2136, TSIG)")
        yield net, names


@contextmanager
def played(net: OverlayNet, names: NameServer) -> Iterator[Stage]:
    """Everything registered, agents and tasks running. Raises TopologyError, AgentError."""
    net.register(attachments=False)
    with Agents(net, net.need_rest().base) as agents:
        one = Stage(net, names, agents, {})
        for spec in cast.tasks():
            for nve in cast.NVES:
                net.lab.run.note(netns=f"{net.lab.run.tag}-{nve}-{spec.name}")
            one.tasks[spec.name] = StreamTask(agents, spec.name, [cast.interface(spec)], rate=RATE)
            one.tasks[spec.name].run(spec.nve)
            one.note(spec.name, spec.nve)
        net.need_rest().await_synced(nve.name for nve in net.nves)
        yield one
