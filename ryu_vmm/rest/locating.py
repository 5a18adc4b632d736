"""Answers about locations: the directory, and which flows carry a VM's packets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import addresses, model, ovstext
from ..errors import VmmError
from ..flows import IN_PORT, Flow, FlowStats, Output, SetField, ToNva
from ..resolution import holder
from ..routing import tag
from ..state import State
from ..tables import CLASSIFY, DELIVER, FROM_TUNNEL, ROUTE, TABLES, Why, move_of, why_of
from . import views
from .contract import Call, Reply
from .paging import by_name
from .registering import VMS, vni_of

__all__ = ["directory", "explain", "names"]

#: How long a switch may take to report its flows to ``explain``, in seconds.
EXPLAIN_TIMEOUT = 2.0


def directory(call: Call) -> Reply:
    """Entries that fit all of network, MAC, IP and VM that are given. NotFound: no such network or VM."""
    state, scope = call.state, call.scope
    wanted = _wanted(call)
    if not scope.whole:
        wanted = [i for i in wanted if scope.interface(state.interfaces[i])]
    return by_name(call, wanted, lambda i: scope.shown_entry(views.directory_entry(state, state.interfaces[i])))


def _wanted(call: Call) -> Iterable[str]:
    """Ids of the interfaces asked for: from the narrowest index there is, then held against the rest."""
    state, query = call.state, call.query
    vnis = [vni_of(call, query.network)] if query.network is not None else list(state.networks)
    mac = None if query.mac is None else addresses.parse_mac(query.mac)
    ip = None if query.ip is None else addresses.parse_ip(query.ip)
    found: Iterable[str]
    if query.vm is not None:
        call.parameters["name"] = query.vm
        found = VMS.found(call).interfaces
    elif mac is not None:
        found = filter(None, (state.mac_owner(vni, mac) for vni in vnis))
    elif ip is not None:
        found = filter(None, (holder(state, vni, ip) for vni in vnis))
    elif query.network is not None:
        return state.in_network(vnis[0])
    else:
        return call.scope.interfaces()

    def fits(i: model.Interface) -> bool:
        return (
            (query.network is None or i.vni == vnis[0])
            and (mac is None or mac in state.macs(i))
            and (ip is None or holder(state, i.vni, ip) == i.id)
        )

    return [key for key in found if fits(state.interfaces[key])]


def names(call: Call) -> Reply:
    """What names stand for, and whether name servers have been told."""
    state, scope = call.state, call.scope
    seen: Iterable[str] = state.names
    if not scope.whole:
        seen = [name for name, row in state.names.items() if scope.name(row)]
    return by_name(call, seen, lambda name: views.name(state, name))


def explain(call: Call) -> Reply:
    """Where a VM is and, read from every connected NVE of its networks, the flows that carry its packets. NotFound."""
    vm: model.Vm = VMS.found(call)
    installed: dict[str, list[FlowStats]] = {}
    unread: list[dict[str, str]] = []
    concerned = {n for i in vm.interfaces for n in call.state.members(call.state.interfaces[i].vni)}
    for nve in sorted(filter(call.scope.nve, concerned)):
        if nve not in call.state.sessions:
            unread.append({"nve": nve, "why": "not connected"})
            continue
        try:
            installed[nve] = list(call.runtime.flows(nve, timeout=EXPLAIN_TIMEOUT))
        except (VmmError, TimeoutError) as e:
            unread.append({"nve": nve, "why": str(e) or "the switch did not answer in time"})
    state = call.state
    vm = VMS.found(call)  # reading took time; say what is so now
    interfaces = []
    for key in vm.interfaces:
        interface = state.interfaces[key]
        flows = [f for nve, stats in installed.items() for f in _carrying(state, nve, interface, stats)]
        interfaces.append({**views.interface(state, interface), "flows": flows})
    return Reply(
        {
            "vm": vm.name,
            "move": views.newest_move(state, vm),
            "interfaces": interfaces,
            "unread": unread,
        }
    )


def _carrying(state: State, nve: str, interface: model.Interface, stats: Iterable[FlowStats]) -> list[dict[str, Any]]:
    """An NVE's flows that packets to an interface may take: of tables route and deliver, highest priority first."""
    stats = list(stats)
    routes = [e for e in stats if e.flow.table in (CLASSIFY, ROUTE) and _routes_to(state, interface, e.flow)]
    routes.sort(key=lambda entry: (entry.flow.table, -entry.flow.priority))
    delivered = [each for face in state.faces(interface) for each in _delivering(state, nve, face, stats)]
    return [_flow(state, nve, e, sorted(_sides(e.flow))) for e in routes] + delivered


def _routes_to(state: State, interface: model.Interface, flow: Flow) -> bool:
    """Whether a flow routes packets to one of an interface's addresses, or takes a locator off them."""
    if any(isinstance(a, SetField) and a.field == "ipv6_dst" and a.value in interface.ipv6 for a in flow.actions):
        return flow.table == CLASSIFY
    fields = {name: (value, mask) for name, value, mask in flow.match}
    if "tun_id" in fields:
        if fields["tun_id"][0] != interface.vni.to_bytes(8, "big"):
            return False
    elif int.from_bytes(fields.get("metadata", (b"", None))[0], "big") != tag(state, interface.vni):
        return False
    held = [row.address for row in state.held_by(interface.id)]
    for field, own in (("ipv4_dst", (*interface.ipv4, *held)), ("ipv6_dst", (*interface.ipv6, *held))):
        value, mask = fields.get(field, (None, None))
        if value is not None and any(_under(address, mask) == value for address in own if len(address) == len(value)):
            return True
    return False


def _under(address: bytes, mask: bytes | None) -> bytes:
    return address if mask is None else bytes(a & m for a, m in zip(address, mask, strict=True))


def _delivering(
    state: State, nve: str, interface: model.Interface, stats: Iterable[FlowStats]
) -> list[dict[str, Any]]:
    to = {"tun_id": interface.vni.to_bytes(8, "big"), "eth_dst": interface.mac}
    found = []
    for entry in stats:
        if entry.flow.table != DELIVER:
            continue
        matched = {name: value for name, value, mask in entry.flow.match if mask is None}
        if all(matched.get(name) == value for name, value in to.items()):
            found.append(entry)
    found.sort(key=lambda entry: -entry.flow.priority)
    taken: set[str] = set()
    documents = []
    for entry in found:
        # A flow that looks at nothing but where the packet came from takes all that comes from there.
        sides = _sides(entry.flow)
        carries = sorted(sides - taken)
        if not any(name.startswith("tun_ip") for name, _, _ in entry.flow.match):
            taken |= sides
        documents.append(_flow(state, nve, entry, carries))
    return documents


def _sides(flow: Flow) -> set[str]:
    """Where the packets of a deliver flow come from."""
    for name, value, mask in flow.match:
        if name == "metadata" and mask is not None and int.from_bytes(mask, "big") & FROM_TUNNEL:
            return {"tunnel"} if int.from_bytes(value, "big") & FROM_TUNNEL else {"local"}
    return {"local", "tunnel"}


def _flow(state: State, nve: str, entry: FlowStats, carries: list[str]) -> dict[str, Any]:
    flow = entry.flow
    why, about = why_of(flow.cookie) or (None, 0)
    concerns_move = why in (Why.REDIRECT, Why.HOLD, Why.STALE)
    return {
        "nve": nve,
        "table": flow.table,
        "priority": flow.priority,
        "match": ovstext.match(flow.match),
        "actions": ovstext.actions(flow),
        "packets": entry.packets,
        "bytes": entry.bytes,
        "age": entry.age,
        "purpose": "foreign" if why is None else why.name.lower(),
        "move": move_of(about) if concerns_move else None,
        "to": _goal(state, nve, flow),
        "carries": carries,
    }


def _goal(state: State, nve: str, flow: Flow) -> str:
    """Where a flow's packets end up, in words."""
    there: bytes | None = None
    for action in flow.actions:
        if isinstance(action, SetField) and action.field in ("tun_ipv4_dst", "tun_ipv6_dst"):
            there = action.value
    outputs = [a.port for a in flow.actions if isinstance(a, Output)]
    if there is not None and outputs:
        peer = next((n.name for n in state.nves.values() if there in (n.ipv4, n.ipv6)), "an unknown NVE")
        how = "redirected to" if outputs[-1] == IN_PORT else "tunnel to"
        return f"{how} {peer} ({addresses.format_ip(there)})"
    located = next((a.value for a in flow.actions if isinstance(a, SetField) and a.field == "ipv6_dst"), None)
    if outputs and located is not None:
        peer = next((n.name for n in state.nves.values() if n.locator == located[:8]), "an unknown NVE")
        return f"by ILA to {peer} ({addresses.format_ip(located)})"
    if flow.goto is not None:
        return f"table {next((t.name for t in TABLES if t.number == flow.goto), flow.goto)}"
    if outputs:
        name = state.by_number.get((nve, outputs[-1]), str(outputs[-1]))
        return f"port {name}"
    if any(isinstance(action, ToNva) for action in flow.actions):
        return "the NVA"
    return "nowhere (dropped)"
