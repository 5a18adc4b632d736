"""The NVA killed and started again with very many VMs: how long until every NVE is in sync, and what is lost meanwhile.

Most VMs are ports without a guest (internal ports of Open vSwitch, up, which a switch cannot tell from others); some
are guests with traffic between them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.machine import cpu_seconds
from benchmarks.report import Part, number
from proof.lab import Lab

from topologies import NVE, netns
from topologies.rundir import wait_until
from topologies.traffic.session import Outcome, UdpSession, both_ways

NVES = 3
GUESTS = 6
RATE = 50.0  # datagrams per second of each flow
RUNS = 5
_REGISTER = 250  # VMs of one request
_PATIENCE = 120.0
_STEADY = 1.0  # seconds of traffic before each kill and after each recovery


@dataclass(frozen=True)
class Restart:
    """One restart. Seconds from the start of the process: until REST took requests, and until all were in sync.

    worked: processor seconds that the process had used by then.
    """

    ready: float
    synced: float
    worked: float


@dataclass(frozen=True)
class Many:
    """What came of it. ports: real ports of switches, of so many VMs. flows: of the fullest switch."""

    vms: int
    ports: int
    flows: int
    plugging: float
    restarts: list[Restart]
    traffic: Outcome
    wrong: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        found = list(self.wrong)
        for what, count in (("lost", self.traffic.lost), ("doubled", self.traffic.duplicated),
                            ("foreign", self.traffic.foreign), ("dropped by receivers", self.traffic.dropped)):
            if count:
                found.append(f"{count} {what}")
        if self.ports < self.vms:
            found.append(f"only {self.ports} of {self.vms} VMs have a port")
        return [f"restart with {self.vms} VMs: {words}" for words in found]

    def part(self) -> Part:
        """As a table."""
        synced, ready = [one.synced for one in self.restarts], [one.ready for one in self.restarts]
        row = [
            number(self.vms), number(self.ports), number(self.flows), number(len(self.restarts)),
            f"{statistics.median(ready):.2f}", f"{statistics.median(synced):.2f}", f"{max(synced):.2f}",
            f"{statistics.median(one.worked for one in self.restarts):.2f}",
            number(self.traffic.sent), number(self.traffic.lost), number(self.traffic.duplicated),
            number(len(self.wrong)),
        ]
        columns = [
            "VMs", "ports in switches", "flows of the fullest NVE", "restarts", "REST ready, s (median)",
            "all in sync, s (median)", "(longest)", "NVA's processor time till then, s", "datagrams sent", "lost",
            "doubled", "differences afterwards",
        ]
        notes = [
            f"{NVES} real NVEs; seconds from the start of the process, after a SIGKILL. Open vSwitch looks for its "
            "controller after 1 s, then 2 s and 4 s. Traffic was established and went on throughout.",
        ]
        data = {"restarts": [vars(one) for one in self.restarts], "problems": self.problems(),
                "plugging": self.plugging, "vms": self.vms, "ports": self.ports}
        return Part("restart", f"The NVA restarted with {self.vms:,} VMs", columns, [row], notes, data)


def run(vms: int, runs: int, say: Callable[[str], None]) -> Many:
    """Build it, then kill and start the NVA so many times under traffic. Raises TopologyError, AssertionError."""
    with Lab(nves=NVES, vms=GUESTS) as lab:
        began = time.monotonic()
        names = [[f"p{n}" for n in range(k, vms - GUESTS, NVES)] for k in range(NVES)]
        for nve, ports in zip(lab.net.nves, names, strict=True):
            plug(nve, ports)
        plugging = time.monotonic() - began
        say(f"{vms - GUESTS} ports plugged in {plugging:.0f} s")
        bodies = [_body(int(port[1:]), port, nve) for nve, ports in zip(lab.net.nves, names, strict=True)
                  for port in ports]
        for first in range(0, len(bodies), _REGISTER):
            lab.post("/vms", bodies[first : first + _REGISTER])
        lab.await_synced(_PATIENCE)
        say(f"{vms} VMs registered, in sync")
        guests = [lab.vm(f"vm{n + 1}") for n in range(GUESTS)]
        pairs = [pair for n, one in enumerate(guests) for family in (4, 6)
                 for pair in both_ways(one, guests[(n + 1) % GUESTS], 4 if family == 4 else 6, RATE)]
        restarts = []
        with UdpSession(pairs, quiet=0.5) as session:
            for _ in range(runs):
                time.sleep(_STEADY)  # the load itself is what is waited for
                restarts.append(_restart(lab))
                say(f"in sync {restarts[-1].synced:.2f} s after the start, REST after {restarts[-1].ready:.2f} s")
            time.sleep(_STEADY)
            outcome = session.stop()
        items = lab.get("/directory?limit=5000")["items"]
        bound = sum(bool(item["bound"]) for item in items)
        flows = max(len(nve.flows()) for nve in lab.net.nves)
        return Many(len(items), bound, flows, plugging, restarts, outcome, lab.verify())


def plug(nve: NVE, ports: list[str]) -> None:
    """Add internal ports to an NVE's bridge, up."""
    words: list[str] = []
    for port in ports:
        words += ["--", "add-port", "br-int", port, "--", "set", "Interface", port, "type=internal"]
    if words:
        nve.vsctl(*words[1:], timeout=100)
        netns.ip_batch(nve.namespace, *(f"link set {port} up" for port in ports))


def _body(n: int, port: str, nve: NVE) -> dict[str, object]:
    low = f"{n >> 8 & 255:02x}:{n & 255:02x}"
    return {"name": f"many{n}", "interfaces": [{
        "name": "eth0", "network": "vn1", "mac": f"02:0a:00:00:{low}", "nve": nve.name, "port": port,
        "ipv4": [f"10.1.{n >> 8 & 255}.{n & 255}"], "ipv6": [f"2001:db8:1::{n + 1:x}"],
    }]}


def _restart(lab: Lab) -> Restart:
    lab.nva.kill()
    began = time.monotonic()
    lab.nva.start()
    ready = time.monotonic() - began

    def synced() -> bool:
        return all(
            nve["in_sync"] and nve["generation"]["programmed"] == nve["generation"]["realised"]
            for nve in lab.get("/nves")["items"]
        )

    wait_until(synced, _PATIENCE, "all NVEs in sync after the restart", 0.01)
    return Restart(ready, time.monotonic() - began, cpu_seconds(lab.nva.pid))
