"""What becomes of everything that the NVA holds when it is started again: the one list.

Whatever has effect beyond the step that made it is recorded, or comes back by itself, or is forgotten on purpose; here
is said which, and why that is enough. A test looks at a running NVA and finds nothing in it that is not in this list;
another one restarts it after every step of random histories, and finds flows, answers and timers as they were.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["HELD", "RECORDED", "TABLES", "TIMERS", "Fate", "Kept"]


class Fate(enum.StrEnum):
    """What becomes of something.

    recorded: it is in the store. read: switches say it when they are back. derived: it follows from what is recorded,
    or read. anew: it is begun anew, and comes to the same. forgotten: on purpose. fixed: it never changes while the
    NVA runs.
    """

    RECORDED = "recorded"
    READ = "read"
    DERIVED = "derived"
    ANEW = "anew"
    FORGOTTEN = "forgotten"
    FIXED = "fixed"


class Kept(NamedTuple):
    """A fate, and why it is enough."""

    fate: Fate
    why: str


_RECORDED = Kept(Fate.RECORDED, "")
_INDEX = Kept(Fate.DERIVED, "an index, kept by every change of its table")
_STEP = Kept(Fate.FORGOTTEN, "of the step in hand only")
_FIXED = Kept(Fate.FIXED, "configuration")
_RATE = Kept(Fate.FORGOTTEN, "a count over seconds: what goes on is counted again")
_PACE = Kept(Fate.FORGOTTEN, "when something was last told, asked or tried: it is once more, at once")


def _read(why: str) -> Kept:
    return Kept(Fate.READ, why)


def _derived(why: str) -> Kept:
    return Kept(Fate.DERIVED, why)


def _anew(why: str) -> Kept:
    return Kept(Fate.ANEW, why)


def _forgotten(why: str) -> Kept:
    return Kept(Fate.FORGOTTEN, why)


#: Tables of State, in which every change is journalled.
TABLES: dict[str, Kept] = {
    "nves": _RECORDED,
    "networks": _RECORDED,
    "vms": _RECORDED,
    "interfaces": _RECORDED,
    "moves": _RECORDED,
    "evacuations": _RECORDED,
    "evacuees": _RECORDED,
    "names": _RECORDED,
    "offers": _RECORDED,
    "hops": _RECORDED,
    "left": _RECORDED,
    "holders": _RECORDED,
    "changed": _RECORDED,
    "vanished": _RECORDED,
    "heard": _RECORDED,
    "sought": _RECORDED,
    "frozen": _RECORDED,
    "thawed": _RECORDED,
    "silenced": _RECORDED,
    "muted": _RECORDED,
    "ports": _read("said by each switch as it connects"),
    "sessions": _read("said by each switch as it connects"),
    "strangers": _read("said by each switch as it connects"),
    "pulled": _read("entries in use are found when a switch's flows are read back: adopting.py"),
    "gone": _read("found with its meter when a switch's flows are read back: adopting.py"),
    "lacking": _derived("from registrations and ports"),
    "clock": _derived("each timer from what it is about"),
    "waits": _anew("open moves wait for all their NVEs to be in sync: recovery.py"),
    "returning": _derived("from moves that were rolled back and whose source may not know: recovery.py"),
    "probes": _anew("paths are proven again"),
    "broken": _anew("paths are probed again"),
    "doubted": _anew("who shares an address is asked when their NVE is back: sharing.py"),
    "telling": _anew("what was not told often enough is told again: announcing.py"),
    "overheard": _RECORDED,
    "unpublished": _anew("what no name server has confirmed is handed over again: names.py"),
    "generations": _anew("a switch that comes back is read, and programmed under a new one"),
    "meta": _derived("the generation goes on from what is recorded in numbers"),
    "faults": _anew("a change that a switch refuses is refused again"),
    "numbers": _RECORDED,
    "slots": _RECORDED,
    "wishes": _RECORDED,
    "refusals": _anew("a unit that a switch refuses is refused again"),
    "certain": _anew("said by barriers of the connection: a switch is read as it connects"),
    "needs": _anew("what open moves need is found as they go on"),
    "barriers": _forgotten("measured; what is not in a ledger yet is not exact"),
    "held": _forgotten("packets in the memory of a process; who sent them sends again"),
    "unadmitted": _forgotten("samples for people: what goes on is sampled again"),
}

#: Tables that survive a restart.
RECORDED = tuple(name for name, kept in TABLES.items() if kept.fate is Fate.RECORDED)

_OF_MOVES = _anew("its move goes on once its NVEs are in sync, or its grace is over: recovery.py")

#: Timers, by kind.
TIMERS: dict[str, Kept] = {
    "deadline": _anew("the state's own, and time for NVEs to come back: recovery.py"),
    "probe": _OF_MOVES,
    "poll": _OF_MOVES,
    "account": _anew("a ledger that is open is read to the end once its NVEs are in sync: recovery.py"),
    "guard": _OF_MOVES,
    "sample": _OF_MOVES,
    "regroup": _anew("begins with the restart: recovery.py"),
    "watch": _anew("watching.py"),
    "rewatch": _anew("begins when a source is back: watching.py"),
    "off": _anew("an NVE has time to come back: shutoff.py"),
    "evacuation": _anew("NVEs have time to come back: evacuations.py"),
    "freeze": _derived("from frozen"),
    "silence": _derived("from silenced"),
    "mute": _derived("from muted"),
    "sought": _derived("from sought"),
    "left": _derived("from left"),
    "holder": _derived("from holders"),
    "told": _derived("from changed and vanished"),
    "tell": _anew("announcing.py"),
    "doubt": _anew("sharing.py"),
    "hops": _anew("next hops are asked for when their NVE is back: neighbors.py"),
    "resync": _anew("a switch is read as it connects"),
    "retry": _anew("a unit that a switch refuses is refused again: quarantine.py"),
    "tunnels": _anew("paths are probed in turn"),
    "refusals": _forgotten("what was counted and not yet told"),
}

#: All else that objects hold while the NVA runs, by Class.attribute.
HELD: dict[str, Kept] = {
    # State, beside its tables
    **{
        f"State.{name}": _INDEX
        for name in (
            "attached", "by_dpid", "by_evacuation_request", "by_ip", "by_mac", "by_number", "by_place", "by_request",
            "evacuating", "pending_at", "sharing", "sought_at", "unfinished", "floods", "_changed_in", "_evacuees_in",
            "_expecting", "_free_slots", "_guests", "_held_by", "_in_network", "_left_at", "_left_by", "_left_of",
            "_located", "_members", "_moves_at", "_moves_in", "_moves_of", "_moves_of_vm", "_moves_to", "_named",
            "_networks_of", "_open", "_own", "_ports_of", "_promised", "_proving", "_pulled_at", "_pulled_by",
            "_routers", "_slots", "_slots_used", "_trusting", "_refused_by", "withheld", "_unconfirmed",
            "_vanished_in", "_vms_of_tenant", "_vni_of", "_on_trial", "_slots_of", "_slot_shown", "_slot_recorded",
        )
    },
    "State.version": _forgotten("counts changes for caches of this process"),
    "State.limits": _FIXED,
    "State.touched": _STEP,
    "State.joined": _STEP,
    "State._journal": _STEP,
    "State._quiet": _STEP,
    # the step in hand
    "Outcome.effects": _STEP,
    "Outcome.promise": _STEP,
    "Outcome.records": _STEP,
    "Outcome.reply": _STEP,
    "Registry.elsewhere": _STEP,
    "Work.awaiting": _STEP,
    "Work.first": _STEP,
    "Work.now": _STEP,
    "Work.whole": _STEP,
    "Work.counters": _forgotten("counters of a process begin at 0, as Prometheus expects"),
    "Work.settings": _FIXED,
    "Nva.settings": _FIXED,
    "Nva._handlers": _FIXED,
    "Timers._handlers": _FIXED,
    "Timers._raised": _PACE,
    # what parts of the core remember
    "Accounts._accounts": _forgotten("readings of ledgers that are open: these are not exact, and say so"),
    "Queues._seen": _forgotten("readings of ports: accounts that were open are not whole, and say so"),
    "Prober._nonces": _anew("probes of before are not known any more; new ones are sent"),
    "Prober._nonces_of": _anew("the same"),
    "Prober._secret": _anew("each process has its own, so that probes of before prove nothing"),
    "Prober._warmed": _anew("every path is warmed when its NVE is back"),
    "Tunnels._secret": _anew("each process has its own, so that probes of before prove nothing"),
    **{
        f"Tunnels.{name}": _anew("paths are probed in turn, those of NVEs that are back at once")
        for name in (
            "_allowed", "_due", "_looked", "_nonces", "_round", "_round_began", "_senders", "_sent", "_tries",
            "_urgent", "_wanted_at",
        )
    },
    "Neighbors._heard": _anew("next hops are asked for again"),
    "Neighbors._tries": _anew("the same"),
    "Switches._asked_at": _forgotten("comparisons under way: whoever waits asks again"),
    "Switches._overtaken": _forgotten("readings under way: they are asked for as a switch connects"),
    "Refusals._since": _forgotten("what was counted and not yet told; the first of a kind is told at once"),
    "Refusals._forged": _RATE,
    "Samples._sampled": _RATE,
    # the runtime around it
    **{f"MemoryStore.{name}": _RECORDED for name in ("rows",)},
    "Runtime.started": _FIXED,
    "Runtime._epoch": _FIXED,
    "Runtime._waiting": _forgotten("facts that the store has not taken: switches say anew what is so"),
    "Runtime._again_at": _PACE,
    "Runtime._timers_at": _PACE,
    "Runtime._sync_due": _forgotten("what is in the store's journal is in the store"),
    "Runtime._taking": _STEP,
    "Runtime.refused": _anew("the file is read again at the start"),
    "Runtime._answers": _forgotten("questions under way: whoever waits asks again"),
    "Runtime._asked": _forgotten("numbers of such questions"),
    "Runtime._drops": _read("counters of switches, every ten seconds"),
    "Runtime._given": _forgotten("a cache of answers"),
    "Runtime._answers_version": _forgotten("of that cache"),
    "Runtime._timer": _FIXED,
    "Runtime._stopping": _FIXED,
    "Runtime.shed_packets": _forgotten("counters of a process begin at 0"),
    "CatchUp._flooded": _PACE,
    "CatchUp._stopping": _FIXED,
    "EventLog._news": _FIXED,
    "EventLog._ring": _forgotten("who follows is told of a gap: the stream has another beginning"),
    "EventLog.last": _forgotten("the same"),
    "Failures._asked": _PACE,
    "Failures._later": _forgotten("all switches connect anew"),
    "Failures.last": _forgotten("the log has it"),
    "Seldom._known": _PACE,
    "Seldom.every": _FIXED,
    "Seldom.keys": _FIXED,
    "Telling._due": _PACE,
    "Telling._full_until": _PACE,
    "Telling._lines": _PACE,
    "Telling._pause": _FIXED,
    # REST beside it
    "AuditTrail.keep": _FIXED,
    "AuditTrail.unrecorded": _forgotten("counters of a process begin at 0"),
    "AuditTrail._path": _FIXED,
    "AuditTrail._lock": _FIXED,
    "AuditTrail._room": _forgotten("a bound on refused attempts over seconds; who starts the NVA begins it anew"),
    "AuditTrail._at": _forgotten("the same"),
    "AuditTrail._left_out": _forgotten("how many refused attempts were not recorded: the log has them"),
    "AuditTrail._trouble": _anew("found out by the next change"),
    "AuditTrail._owed": _forgotten("what came of changes that could not be recorded: their entries say 'begun'"),
    "AuditTrail._closed": _FIXED,
    "AuditTrail._since_trim": _PACE,
    "Access.keyring": _FIXED,
    "Access.counters": _forgotten("counters of a process begin at 0"),
    "Access._secret": _anew("each process has its own; tokens are verified once more"),
    "Access._good": _anew("the same"),
    "Access._wrong": _anew("the same"),
    "Access._turn": _FIXED,
    "Access._in_line": _STEP,
    "Buckets._levels": _forgotten("who has failed too often may fail ten times more after a restart"),
    "Buckets.most": _FIXED,
    "Buckets.size": _FIXED,
    "Buckets.refill": _FIXED,
}
