"""What each kind of unit of the pipeline is computed from, and so what a change touches: the one place that says so.

:data:`READS` declares for every kind of unit which tables' rows, and which of their fields, it looks at, and how those
units are found that look at a row. What a change touches is derived from that: Journal.put asks :func:`readers` of the
row as it was, in the state before, and of the row as it is, in the state after. Nothing else touches units, but for
what is counted: ``members`` and ``hosts`` of a network, and where somebody is expected, say so when they change.

It is enough to find those that read a row *before* it changes: a unit of which nothing that it has read has changed is
what it was. Too many may be found; none may be missing. Tests record what every unit reads, and ask here for each cell.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from . import finding as find
from .finding import Finder, Found

if TYPE_CHECKING:
    from .state import State


class Read(NamedTuple):
    """Rows that a kind of unit reads.

    ``table``: where they are; ``fields``: those that matter, separated by spaces ("policy.mtu": one of a policy's),
    empty: any; ``found``: the units of that kind that read a row.
    """

    table: str
    fields: str
    found: Finder


# --- what the units read ----------------------------------------------------------------------------------------------
_ROUTED = "kind gateway subnets sir router tenant policy.mtu"
_UNDERLAY = "ipv4 ipv6"
_ILA = "ipv4 ipv6 locator"
_MOVE = "state redirect sampling legs peers watched changes activated_by kind trigger"

#: What units of every kind read: their NVE's own row and session, what is routed together, and what is withheld.
EVERY = (
    Read("nves", "", find.itself),
    Read("sessions", "", find.itself),
    Read("networks", _ROUTED, find.whole_domain),
    Read("refusals", "trial", find.refused),
)

#: What units of each kind read beside that.
READS: dict[str, tuple[Read, ...]] = {
    "base": (),
    "expecting": (Read("expecting", "", find.expecting), Read("trusting", "", find.every_expecting)),
    "vn": (
        Read("nves", _UNDERLAY, find.its_floods),
        Read("sessions", "tunnel routed ila", find.at_its_tunnels(find.port_floods)),
        Read("networks", "policy.distribution", find.network),
        Read("interfaces", "vni mac location", find.floods_to),
        Read("holders", "", find.held(find.floods_to)),
        Read("moves", _MOVE, find.moves_floods),
        Read("ports", "", find.port_floods),
        Read("members", "", find.joined_network),
        Read("hosts", "", find.hosted),
    ),
    "peer": (Read("nves", _UNDERLAY, find.its_peers), Read("members", "", find.joined_peers)),
    "port": (
        Read("sessions", "tunnel routed ila", find.at_its_tunnels(find.port_or_home)),
        Read("networks", "policy.admit policy.allow", find.ports_in),
        Read("interfaces", "", find.ports_of),
        Read("moves", _MOVE, find.moves_ports),
        Read("ports", "", find.port_or_home),
        Read("sought", "", find.sought_port),
        Read("silenced", "", find.port),
        Read("muted", "", find.port),
        Read("frozen", "", find.known(find.ports_of)),
        Read("left", "", find.left_ports),
        Read("trusting", "", find.every_port),
    ),
    "if": (
        Read("nves", _ILA, find.its_guests),
        Read("offers", "", find.its_guests),
        Read("hops", "", find.by_hop),
        Read("networks", "policy.distribution policy.idle_timeout", find.interfaces_in),
        Read("interfaces", "vni mac ipv4 ipv6 location", find.interface),
        Read("holders", "", find.held(find.interface)),
        Read("moves", _MOVE, find.moves_interfaces),
        Read("ports", "", find.port_interfaces),
        Read("left", "", find.left_interface),
        Read("gone", "", find.known(find.counted)),
        Read("pulled", "", find.pulled),
        Read("members", "", find.joined("if")),
    ),
    "answer": (
        Read("networks", "policy.distribution", find.answers_in),
        Read("interfaces", "vni mac ipv4 ipv6", find.answers_of),
        Read("holders", "", find.answers_held),
        Read("hosts", "", find.joined("answer")),
    ),
    "router": (
        Read("nves", _UNDERLAY, find.its_subnets),
        Read("offers", "", find.its_subnets),
        Read("members", "", find.joined_routers),
    ),
    "left": (
        Read("nves", _ILA, find.its_left),
        Read("offers", "", find.its_left),
        Read("hops", "", find.left_by_hop),
        Read("interfaces", "location", find.left_by),
        Read("moves", _MOVE, find.moves_left),
        Read("left", "", find.left),
        Read("members", "", find.joined_left),
    ),
    "probes": (
        Read("nves", _UNDERLAY, find.its_probes),
        Read("moves", _MOVE, find.moves_probes),
        Read("members", "", find.joined_probes),
    ),
    "move": (
        Read("nves", _ILA, find.its_moves),
        Read("offers", "", find.its_moves),
        Read("hops", "", find.moves_by_hop),
        Read("networks", "kind gateway", find.ended_in),
        Read("interfaces", "vni mac ipv6 location", find.moves_of),
        Read("holders", "", find.held(find.moves_of)),
        Read("moves", _MOVE, find.moves_moves),
        Read("returning", "", find.ended),
        Read("members", "", find.joined_moves),
    ),
}


# --- what a change touches --------------------------------------------------------------------------------------------
def _by_table(reads: Iterable[Read]) -> dict[str, list[tuple[frozenset[str], Finder]]]:
    tables: dict[str, list[tuple[frozenset[str], Finder]]] = {}
    for table, names, found in reads:
        tables.setdefault(table, []).append((frozenset(names.split()), found))
    return tables


_BY_TABLE = _by_table((*EVERY, *(read for reads in READS.values() for read in reads)))
#: The tables that units read. Others are put into with each program, barrier and timer, so nothing is derived of these.
READ = frozenset(_BY_TABLE)


def changed(old: Any, new: Any) -> frozenset[str]:
    """The fields in which two rows of a table differ, those of a policy apart; empty: all, or they have none."""
    if old is None or new is None:
        return frozenset()
    names: tuple[str, ...] = _names(old.__class__)
    found = {name for name in names if getattr(old, name) != getattr(new, name)}
    if "policy" in found:
        found |= {f"policy.{name}" for name in changed(old.policy, new.policy)}
    return frozenset(found)


@functools.cache
def _names(kind: Any) -> tuple[str, ...]:
    if is_dataclass(kind):
        return tuple(field.name for field in fields(kind))
    return tuple(getattr(kind, "_fields", ()))


def readers(state: State, table: str, key: object, row: object, fields: frozenset[str] = frozenset()) -> Found:
    """The units that read a row.

    Args:
        state: in which they are looked for.
        table: that of the row, or what is counted: "members", "hosts", "expecting", "trusting".
        key: the row's.
        row: the row, None for what is counted.
        fields: those of it that matter, as :func:`changed` says; empty: all.
    """
    for names, found in _BY_TABLE.get(table, ()):
        if not names or not fields or not names.isdisjoint(fields):
            yield from found(state, key, row)


__all__ = ["EVERY", "READ", "READS", "Finder", "Found", "Read", "changed", "readers"]
