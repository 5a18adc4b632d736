"""An NVE evacuated with one request while every VM on it receives and sends, and the NVA killed in the middle of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from topologies.hypervisors import EvacuationReport, Hypervisors, Watcher, evacuate
from topologies.rundir import wait_until
from topologies.specs import crowd
from topologies.traffic.session import Family, Outcome, Pair, UdpSession

from .hot import Findings
from .lab import Lab

EDGE = "nve1"
NVES = 3
VMS = 50
PARALLEL = 4
#: Datagrams per second to each VM from a VM elsewhere, back there, and on to the next VM that is evacuated too.
TO, BACK, ON = 40.0, 20.0, 20.0
ANNOUNCEMENTS = ("garp-request", "na", "rarp", "garp-reply", "none")
#: Underlay, moves at a time, how often the NVA is killed meanwhile.
RUNS = (("ipv4", 1, 0), ("ipv4", 4, 0), ("ipv4", 8, 0), ("ipv6", 4, 0), ("ipv4", 4, 3), ("ipv6", 8, 3))
#: Seconds that the NVA stays away after each further kill, before it is started again.
AWAY = (0.0, 1.0, 3.0)
_STEADY = 1.0  # seconds of traffic before the request and after the end
_PATIENCE = 240.0


@dataclass(frozen=True)
class Evacuated:
    """An evacuation and what came of it.

    away: seconds that the NVA was gone each time it was killed, from SIGKILL to the first request it took again.
    left: VMs located on the NVE at the end. spread: how many VMs each NVE got.
    """

    underlay: str
    parallel: int
    report: EvacuationReport
    traffic: Outcome
    ledgers: list[dict[str, Any]]
    spread: dict[str, int]
    left: int
    wrong: list[str]
    away: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For people."""
        killed = f", NVA killed {len(self.away)} times" if self.away else ""
        return f"{self.report.document['total']} VMs over {self.underlay}, {self.parallel} at a time{killed}"

    @property
    def pauses(self) -> list[float]:
        """How long each VM was paused, in seconds."""
        return [one.downtime for one in self.report.moves]

    @property
    def opened(self) -> int:
        """Moves that the evacuation opened."""
        return sum(int(row["attempts"]) for row in self.report.document["vms"])

    def total(self, *path: str) -> int:
        """The sum of an entry of all moves' ledgers."""
        found = 0
        for ledger in self.ledgers:
            value: Any = ledger
            for name in path:
                value = value[name]
            found += int(value)
        return found

    def lost(self) -> list[str]:
        """What was lost or doubled, or is wrong in a switch, in words; whatever else went wrong."""
        found = list(self.wrong)
        for flow in self.traffic.flows:
            for what, number in (("lost", flow.count.lost), ("duplicated", flow.count.duplicated)):
                if number:
                    found.append(f"{number} {what}, {flow.name}, {flow.count.lost_runs}")
        sums = {
            "foreign": self.traffic.foreign,
            "dropped by the receivers": self.traffic.dropped,
            "left in sources' queues": sum(one.left for one in self.report.moves),
            "lost in the ledgers": self.total("lost", "packets"),
            "held and lost": self.total("held", "lost"),
            "dropped by ports": self.total("dropped", "packets"),
            "unaccounted": self.total("unaccounted"),
        }
        return [*found, *(f"{number} {what}" for what, number in sums.items() if number)]

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        document, found = self.report.document, Findings([*self.lost(), *self.report.failures])
        found.want("state", document["state"], "done")
        found.want("VMs moved", document["counts"]["moved"], document["total"])
        found.want("VMs left", self.left, 0)
        found.want("moves opened", self.opened, document["total"])
        if not self.total("redirected", "packets"):
            found.words.append("nothing was redirected: this has shown nothing")
        if self.report.most_at_once > self.parallel:
            found.words.append(f"{self.report.most_at_once} VMs were under way at a time")
        if max(self.spread.values()) - min(self.spread.values()) > 1:
            found.words.append(f"the VMs are spread unevenly: {self.spread}")
        return [f"{self.name}: {words}" for words in found.words]


def lab(underlay: str, vms: int = VMS, **options: object) -> Lab:
    """An overlay with so many VMs on one NVE, and a VM on each other one; registered, nothing pinged yet."""
    return Lab(underlay, nves=NVES, vms=crowd(vms, NVES), register=False, **options)


def prepare(lab: Lab) -> list[Pair]:
    """Register everything, and have every pair of VMs that is to speak learn each other's address."""
    rest = lab.net.need_rest()
    for nve in lab.net.nves:
        rest.add_nve(nve)
    for vn in lab.net.topo.vn_specs:
        rest.add_network(vn)
    lab.post("/vms", [lab.body(spec) for spec in lab.net.topo.vm_specs])
    lab.await_synced()
    found = pairs(lab)
    for pair in found:
        to = pair.target.spec.ip if pair.family == 4 else pair.target.spec.ip6
        ping = ["ping", "-c", "1", "-W", "2", str(to)]
        # An NVE's first packet to another may be lost while its kernel learns that one's MAC.
        wait_until(lambda pair=pair, ping=ping: not pair.source.pexec(ping)[2], 20, f"{pair.name}: an answer to a ping")
    return found


def pairs(lab: Lab) -> list[Pair]:
    """Who speaks to whom: every VM of the crowd with one elsewhere, both ways, and with its neighbor; both families."""
    peers = [vm for vm in lab.net.vms if vm.spec.nve != EDGE]
    crowd = [vm for vm in lab.net.vms if vm.spec.nve == EDGE]
    families: tuple[Family, Family] = (4, 6)
    found = []
    for n, vm in enumerate(crowd):
        peer, one, other = peers[n % len(peers)], families[n % 2], families[(n + 1) % 2]
        found += [Pair(peer, vm, one, TO), Pair(vm, peer, other, BACK), Pair(vm, crowd[(n + 1) % len(crowd)], one, ON)]
    return found


def run(
    lab: Lab, talk: list[Pair], parallel: int = PARALLEL, kills: int = 0, also: Watcher | None = None,
) -> Evacuated:
    """Evacuate the crowd's NVE under traffic.

    kills: so often, at even distances, the NVA is ended by SIGKILL while moves are open, and started again.
    also: is shown what `Hypervisors.run` shows.
    """
    gone: list[float] = []

    def watch(document: dict[str, Any], carriers: Hypervisors) -> None:
        if also is not None:
            also(document, carriers)
        counts = document["counts"]
        off = counts["moved"] + counts["draining"]
        if len(gone) < kills and counts["moving"] and off * (kills + 1) >= document["total"] * (len(gone) + 1):
            started = time.monotonic()
            lab.nva.kill()
            time.sleep(AWAY[len(gone) % len(AWAY)])  # the hypervisors go on with what they are at
            lab.nva.start()
            gone.append(time.monotonic() - started)

    others = [nve.name for nve in lab.net.nves if nve.name != EDGE]
    with UdpSession(talk, quiet=0.5) as session:
        time.sleep(_STEADY)  # the load itself is what is waited for
        report = evacuate(
            lab.net, EDGE, to=others, parallel=parallel, announce=ANNOUNCEMENTS, seconds=_PATIENCE, watch=watch,
            request={"request_id": f"evacuate-{EDGE}", "requested_by": "proof"},
        )
        documents = [lab.await_closed(one.move) for one in report.moves]
        time.sleep(_STEADY)
        traffic = session.stop()
    lab.await_synced()
    spread = Counter(str(one["destination"]) for one in documents)
    left = len(lab.get(f"/vms?nve={EDGE}")["items"])
    wrong = lab.verify()
    if len(gone) < kills:
        wrong.append(f"the NVA was killed {len(gone)} times, not {kills}: the evacuation was over too soon")
    ledgers = [one["ledger"] for one in documents]
    return Evacuated(lab.underlay, parallel, report, traffic, ledgers, dict(spread), left, wrong, gone)
