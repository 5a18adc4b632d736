"""What is broken, and how it is mended. A fault returns when everything that was broken is whole again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from topologies import NVE, netns
from topologies.errors import ApiError
from topologies.rundir import wait_until
from topologies.traffic.session import Pair

from .ground import Ground, await_true
from .losses import Outage
from .staged import STATES, Staged

ROLES = ("source", "destination", "correspondent")
ENDED = frozenset({"settled", "aborted", "failed"})
#: Seconds that an underlay link stays down.
CUT = 1.0
#: Seconds that a control channel carries nothing.
STALL = 1.5
#: Seconds that a move has ended and an NVE that is gone does not know.
UNAWARE = 0.7
#: Seconds from an NVE's being in sync (with empty tables before), or from the first ping over its underlay (cut off
#: before), until Open vSwitch surely forwards: it has to read its routes and to learn its neighbors again.
RECOVERY = 1.0
#: Guests that cannot reach a neighbor for some seconds drop what they know of it and ask again, once a second
#: (RFC 4861's RetransTimer, and Linux for ARP): what they drop until the next question has never been sent.
FORGOTTEN, RETRANSMISSION = 2.0, 1.1
#: Settings under which deadlines pass quickly, for what is gone for longer than they last.
SHORT: dict[str, float] = {
    "prepare_deadline": 3.0, "prepared_deadline": 3.0, "redirect_deadline": 3.0, "steer_deadline": 3.0,
    "drain_cap": 4.0, "quiet_time": 2.0,
}
_PAST = {
    "preparing": SHORT["prepare_deadline"], "prepared": SHORT["prepared_deadline"],
    "redirecting": SHORT["redirect_deadline"], "steering": SHORT["steer_deadline"] + SHORT["drain_cap"],
    "draining": SHORT["drain_cap"], "settled": 1.0,
}


@dataclass(frozen=True)
class Fault:
    """One way to break something.

    name: for people and for --faults. role: the NVE it befalls, by its part in the move ("" for the NVA). strike:
    breaks and mends it. short: whether deadlines must be short. ends: how a move may end that meets it, by the state
    it was in (default: only settled). drops: whether the fault itself drops packets of the data plane.
    """

    name: str
    role: str
    strike: Callable[[Ground, Staged, NVE | None], list[Outage]]
    short: bool = False
    ends: dict[str, frozenset[str]] = field(default_factory=dict)
    drops: bool = False

    @property
    def title(self) -> str:
        """For tables."""
        return f"{self.name}, {self.role}" if self.role else self.name

    @property
    def key(self) -> str:
        """For command lines and test names."""
        return self.title.replace(", ", "-").replace(" ", "-")

    def may_end(self, state: str) -> frozenset[str]:
        """How a move that was in that state may end."""
        return self.ends.get(state, frozenset({"settled"}))


_BEFORE_STEERING = ("preparing", "prepared", "redirecting")


# --- what of the traffic crosses what --------------------------------------------------------------------------------
def crossed(staged: Staged, pair: Pair) -> set[str]:
    """The NVEs that datagrams of a flow cross while the move is in its state."""
    at_destination = staged.state in STATES[STATES.index("steering"):]
    home = staged.destination if at_destination else staged.source
    ends = {(home if vm is staged.vm else vm.nve).name for vm in (pair.source, pair.target)}
    if pair.target is staged.vm:
        stale = pair.source.nve is staged.holder and staged.state == "steering"
        if staged.state == "redirecting" or stale:
            ends |= {staged.source.name, staged.destination.name}
    return ends


def affected(ground: Ground, staged: Staged, nve: NVE, local: bool) -> frozenset[str]:
    """The names of the flows that cross an NVE; with `local` also those that never leave it."""
    found = set()
    for pair in ground.traffic(staged):
        places = crossed(staged, pair)
        if nve.name in places and (local or len(places) > 1):
            found.add(pair.name)
    return frozenset(found)


# --- the faults ------------------------------------------------------------------------------------------------------
def _killed(ground: Ground, staged: Staged, _nve: NVE | None) -> list[Outage]:
    ground.nva.kill()
    ground.nva.start()
    ground.await_all_synced(but=staged.stalled)
    return []


def _dropped(ground: Ground, staged: Staged, nve: NVE | None) -> list[Outage]:
    assert nve is not None
    nve.cut("close")
    ground.await_nve(nve.name, False)
    nve.restore()
    ground.await_nve(nve.name, True)
    ground.await_all_synced(but=staged.stalled)
    return []


def _stalled(ground: Ground, staged: Staged, nve: NVE | None) -> list[Outage]:
    """Nothing is closed, and nothing arrives any more either way, for a while: a half-open connection."""
    assert nve is not None
    nve.cut("stall")
    try:
        time.sleep(STALL)  # the length of the stall
    finally:
        nve.restore()
    ground.await_all_synced(but=staged.stalled)
    return []


def _gone_past_deadline(ground: Ground, staged: Staged, nve: NVE | None) -> list[Outage]:
    assert nve is not None
    nve.cut("close")
    ground.await_nve(nve.name, False)
    # the deadline itself is what has to pass; a move that has ended needs no more of it
    if await_true(lambda: not staged.document()["open"], _PAST[staged.state] + 1.0):
        staged.stay()  # a hypervisor does not wait for what is gone; an NVE that is gone has not heard of the end
        time.sleep(UNAWARE)
    nve.restore()
    ground.await_nve(nve.name, True)
    ground.await_all_synced(but=staged.stalled)
    return []


def _restarted(ground: Ground, staged: Staged, nve: NVE | None) -> list[Outage]:
    assert nve is not None
    after, flows = ground.nva.last_event(), affected(ground, staged, nve, local=True)
    began = time.monotonic()
    nve.crash()
    nve.restart()
    ground.nva.await_event("nve.synchronised", after, 40.0, nve=nve.name)
    ground.await_all_synced(but=staged.stalled)
    return [Outage(f"{nve.name} down and empty", began, whole_at(began), flows)]


def _both_gone(ground: Ground, staged: Staged, nve: NVE | None) -> list[Outage]:
    """The NVA is dead when an NVE restarts, so nobody tells that NVE anything until it is back."""
    assert nve is not None
    flows = affected(ground, staged, nve, local=True)
    ground.nva.kill()
    began = time.monotonic()
    nve.crash()
    nve.restart()
    ground.nva.start()
    ground.await_all_synced(but=staged.stalled)
    return [Outage(f"{nve.name} down, empty, and nobody to ask", began, whole_at(began), flows)]


def whole_at(began: float) -> float:
    """When guests have surely come over an outage that ends now (monotonic seconds)."""
    now = time.monotonic()
    return now + RECOVERY + (RETRANSMISSION if now - began > FORGOTTEN else 0.0)


def _cut_off(ground: Ground, staged: Staged, nve: NVE | None) -> list[Outage]:
    assert nve is not None
    flows, fabric = affected(ground, staged, nve, local=False), ground.net.underlay.namespace
    began = time.monotonic()
    netns.ip_batch(fabric, f"link set {nve.name} down")
    try:
        time.sleep(CUT)  # the length of the cut
    finally:
        netns.ip_batch(fabric, f"link set {nve.name} up")
    await_underlay(ground, nve)
    return [Outage(f"{nve.name} cut off", began, time.monotonic() + RECOVERY, flows)]


def await_underlay(ground: Ground, nve: NVE) -> None:
    """Wait until an NVE's hypervisor reaches another one over the underlay. Raises NotReady."""
    other = next(one for one in ground.net.nves if one is not nve)
    address = str(other.ipv4 or other.ipv6).partition("/")[0]
    ping = netns.inside(nve.namespace, ["ping", "-c", "1", "-W", "0.2", address])
    wait_until(lambda: " 0% packet loss" in netns.run(ping, check=False), 20, f"{nve.name}: a ping to {other.name}")


def _aborted(ground: Ground, staged: Staged, _nve: NVE | None) -> list[Outage]:
    wanted = staged.state in _BEFORE_STEERING
    try:
        ground.post(f"/moves/{staged.number}/abort", {"why": "changed my mind"})
        taken = True
    except ApiError as error:
        if error.status != 409:
            raise
        taken = False
    if taken is not wanted:
        raise AssertionError(f"an abort while {staged.state} was {'taken' if taken else 'refused'}")
    return []


def _aborted_and_killed(ground: Ground, staged: Staged, nve: NVE | None) -> list[Outage]:
    """The NVA dies with an abort's acknowledgement on its lips."""
    _aborted(ground, staged, nve)
    if staged.state in _BEFORE_STEERING:
        staged.stay()
    return _killed(ground, staged, nve)


_ANY = dict.fromkeys(_BEFORE_STEERING, frozenset({"failed", "aborted", "settled"}))
_ABORTS = dict.fromkeys(_BEFORE_STEERING, frozenset({"aborted"}))
#: Past their deadlines moves fail, whoever was waited for; where nobody had to wait they may go on.
_LATE = {**_ANY, **dict.fromkeys(("steering", "draining"), frozenset({"settled", "failed"}))}

FAULTS = (
    Fault("NVA killed", "", _killed),
    *(Fault("channel dropped", role, _dropped) for role in ROLES),
    *(Fault("channel stalled", role, _stalled) for role in ROLES),
    *(Fault("channel gone past the deadline", role, _gone_past_deadline, True, _LATE) for role in ROLES),
    *(Fault("NVE restarted empty", role, _restarted, drops=True) for role in ROLES),
    *(Fault("underlay cut", role, _cut_off, drops=True) for role in ROLES),
    *(Fault("NVE restarted empty while the NVA is dead", role, _both_gone, drops=True) for role in ROLES),
    Fault("abort", "", _aborted, ends=_ABORTS),
    Fault("abort, then NVA killed", "", _aborted_and_killed, ends=_ABORTS),
)


def named(words: str) -> list[Fault]:
    """The faults whose keys contain one of some words, separated by commas."""
    wanted = words.split(",")
    return [fault for fault in FAULTS if any(word in fault.key for word in wanted)]
