"""The main job: traffic on, vm1 there and back, traffic off, everything counted and compared."""

from __future__ import annotations

import time
from typing import Any

from topologies import VM, MoveReport, OverlayNet, TopologyError
from topologies.rundir import wait_until
from topologies.specs import MTU
from topologies.traffic.session import Family, Pair, UdpSession, both_ways

from .account import Account, Moved
from .narrator import Narrator
from .options import Options
from .overlay import everybody_reaches_everybody

MOVER, PEERS = "vm1", ("vm2", "vm3")
#: (destination, how the VM announces itself there)
TRIP = (("nve2", "garp-request"), ("nve1", "na"))
_SAID = {
    "garp-request": "gratuitous ARP", "garp-reply": "gratuitous ARP (a reply)", "rarp": "RARP",
    "na": "unsolicited neighbor advertisement", "both": "gratuitous ARP and neighbor advertisement",
    "none": "its host's word over REST",
}
_STEADY = 1.0  # seconds of undisturbed traffic before, between and after the moves, for the picture
_SETTLE = 70.0  # seconds: longer than the NVA's own cap on draining


def run(net: OverlayNet, options: Options, narrator: Narrator) -> Account:
    """Do it, telling what happens. Raises TopologyError if it cannot even begin."""
    pings = everybody_reaches_everybody(net)
    narrator.say(f"Every VM reaches every other: {pings} pings, IPv4 and IPv6, none lost")
    pairs: list[Pair] = []
    families: tuple[Family, ...] = (4, 6)
    for family in families:
        for peer in PEERS:
            pairs += both_ways(net.vm(MOVER), net.vm(peer), family, rate=options.rate / len(families))
    clock = time.time() - time.monotonic()  # the NVA's times are Unix times, the traffic's monotonic ones
    with UdpSession(pairs) as session:
        narrator.say(f"Traffic on: {MOVER} with {' and '.join(PEERS)}, {options.rate:,.0f} datagrams/s in each "
                     f"direction with each, half IPv4, half IPv6")
        time.sleep(_STEADY)
        moved: list[Moved] = []
        problems = []
        for destination, announce in TRIP:
            try:
                moved.append(make_move(net, narrator, MOVER, destination, announce, options.pause))
            except TopologyError as exc:
                problems.append(f"the move to {destination} went wrong: {exc}")
                narrator.say(problems[-1], "red")
                break
            time.sleep(_STEADY)
        outcome = session.stop()
    narrator.show()
    narrator.say("Traffic off, receivers counted")
    verified = [net.need_rest().call("POST", f"/nves/{nve.name}/verify") for nve in net.nves]
    account = Account(moved, outcome, verified, problems, clock)
    narrator.say("Every flow of every switch read back and compared with what the NVA wants there")
    for found in verified:
        words = f"{found['flows']} flows, " + ("in sync" if found["in_sync"] else "NOT IN SYNC")
        words += ", none from tunnel to tunnel" if not found["tunnel_to_tunnel"] else ", TUNNEL TO TUNNEL LEFT"
        narrator.detail(found["nve"], words)
    return account


def make_move(
    net: OverlayNet, narrator: Narrator, name: str, destination: str, announce: str = "garp-request",
    pause: float = 0.05,
) -> Moved:
    """Move a VM as a hypervisor does, and tell how it went from the NVA's own record. Raises TopologyError."""
    vm: VM = net.vm(name)
    rest = net.need_rest()
    narrator.show()
    narrator.say(f"{name} moves {vm.nve.name} -> {destination}, running and under traffic", "bold")
    report = vm.move(destination, announce=announce, planned=True, pause=pause)
    assert report.move is not None
    _tell_switch_over(narrator, report, rest.move(report.move))
    rest.await_move(report.move, lambda doc: doc["state"] == "settled", _SETTLE, "settled")
    document = wait_until(lambda: _closed(rest.move(report.move)), 10, f"move {report.move}: the ledger's end")
    _tell_end(narrator, document)
    return Moved(report, document)


def tell(narrator: Narrator, moved: Moved) -> None:
    """Tell of a move that is over."""
    narrator.show(f"{moved.report.vm} has moved {moved.name}")
    _tell_switch_over(narrator, moved.report, moved.document)
    _tell_end(narrator, moved.document)


def _closed(document: dict[str, Any]) -> dict[str, Any] | None:
    return document if document["ledger"]["closed"] else None


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms"


def _tell_switch_over(narrator: Narrator, report: MoveReport, document: dict[str, Any]) -> None:
    source, destination, at = report.source, report.destination, report.times
    lasted = {step["state"]: step["seconds"] for step in document["history"]}
    proven = len(document["ledger"]["probes"])
    narrator.detail("prepared", f"{destination} knows {report.vm}; {proven} paths proven with packets of {MTU:,} bytes "
                    f"in {_ms(lasted['preparing'])}")
    narrator.detail("redirecting", f"in force after {_ms(at['redirect_in_force'] - at['notified'])}: {source} sends "
                    f"{report.vm}'s packets on to {destination}, where they wait for it")
    narrator.detail("paused", f"for {_ms(report.downtime)}; {report.queued:,} packets waited at {destination}, "
                    f"{report.left:,} were left behind at {source}")
    narrator.detail("announced", f"by {_SAID[report.announce]} at {destination}: now the directory says {destination}")


def _tell_end(narrator: Narrator, document: dict[str, Any]) -> None:
    ledger = document["ledger"]
    lasted = {step["state"]: step["seconds"] for step in document["history"]}
    barriers = ledger["barriers"]
    narrator.detail("steered", f"{len(barriers)} NVEs confirmed in {_ms(max(barriers.values(), default=0.0))}: packets "
                    f"go straight to {document['destination']}")
    ended = document["history"][-1]["at"]
    last = max((stale["until"] for stale in ledger["stale"]), default=ended - lasted["draining"])
    narrator.detail("settled", f"redirect removed after {ended - last:.1f} s of silence: "
                    f"{ledger['redirected']['packets']:,} packets redirected, {ledger['arrived']['packets']:,} arrived")
