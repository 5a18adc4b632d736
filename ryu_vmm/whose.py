"""Which unit of the pipeline a flow is of, and what units and errors are called where people read of them."""

from __future__ import annotations

from collections.abc import Iterator

from .addresses import format_ip, mac_of_link_local
from .flows import Flow, SetField
from .model import Place
from .pipeline import wanted
from .resolution import holder
from .state import State, Unit
from .tables import Why, move_of, why_of

__all__ = ["error", "unit_of", "words"]

#: OpenFlow's errors that are likely, by type and code (OpenFlow 1.3.5 section 7.4.4).
_ERRORS = {
    (1, 5): "not permitted",
    (1, 6): "longer than a message may be",
    (2, 4): "there is no such port",
    (2, 6): "not permitted",
    (2, 7): "more actions than it can take",
    (2, 10): "an action does not fit the match",
    (2, 13): "a field that it cannot set",
    (2, 15): "a value that it cannot set",
    (3, 0): "an instruction that it does not know",
    (3, 2): "there is no such table",
    (4, 6): "a field that it cannot match",
    (5, 1): "table full",
    (5, 4): "not permitted",
    (12, 3): "there is no such meter",
    (12, 10): "no meter left",
}
_MACS = ("eth_dst", "eth_src")
_IPS = ("ipv4_dst", "ipv6_dst", "ipv4_src", "ipv6_src", "arp_tpa", "arp_spa", "nd_target")


def error(kind: int, code: int) -> str:
    """What an OpenFlow error of a type and code says, e.g. ``table full``; its numbers if it is none of the likely."""
    return _ERRORS.get((kind, code), f"type {kind} code {code}")


def unit_of(state: State, nve: str, flow: Flow) -> Unit | None:
    """The unit of a connected NVE that has exactly this flow now; None: none has.

    What a flow matches and writes says which units it can be of: to compute them all for each flow that is refused
    would take a large NVE seconds.
    """
    tried: set[Unit] = set()
    for unit in _likely(state, nve, flow):
        if unit not in tried and wanted(state, nve, (unit,)).get(flow.key) == flow:
            return unit
        tried.add(unit)
    return None


def _likely(state: State, nve: str, flow: Flow) -> Iterator[Unit]:
    fields = {name: value for name, value, _ in flow.match}
    written = [(action.field, action.value) for action in flow.actions if isinstance(action, SetField)]
    said = [*fields.items(), *written]
    why, about = why_of(flow.cookie) or (Why.BASE, 0)
    port = state.by_number.get((nve, int.from_bytes(fields.get("in_port", b""))))
    if port is not None:
        yield ("port", port)
    named = {int.from_bytes(value) for name, value in said if name == "tun_id"}
    named |= {about, int.from_bytes(fields.get("metadata", b"")) >> 8}
    vnis = sorted({each for vni in named & state.networks.keys() for each in state.domain(vni)})
    found: dict[str, None] = {}
    for vni in vnis:
        for name, value in said:
            owner = state.mac_owner(vni, value) if name in _MACS else None
            if name in _IPS:
                owner = state.owner(vni, value) or holder(state, vni, value)
                yield ("left", f"{nve}/{vni}/{value.hex()}")
                mac = mac_of_link_local(value)
                other = None if mac is None else state.mac_owner(vni, mac)
                if other is not None:
                    found[other] = None
            if owner is not None:
                found[owner] = None
    for i in found:
        yield ("if", i)
        yield ("answer", i)
        for move, _ in state.moves_of(i):
            yield ("move", move.id)
    if why in (Why.REDIRECT, Why.MARK, Why.HOLD, Why.STALE):
        yield ("move", move_of(about))
    peers = {value for name, value in fields.items() if name in ("tun_ipv4_src", "tun_ipv6_src")}
    for vni in vnis:
        yield ("vn", vni)
        yield ("router", state.domain(vni)[0])
        for peer in state.members(vni) if peers else ():
            known = state.nves.get(peer)
            if known is not None and peers & {known.ipv4, known.ipv6}:
                yield ("peer", vni, peer)
    yield ("probes",)
    yield ("expecting",)
    yield ("base",)


def words(state: State, nve: str, unit: Unit) -> str:
    """What a unit of an NVE is, for people: with names of networks, VMs, ports and moves."""
    match unit:
        case ("port", name):
            owner = state.by_place.get(Place(nve, name))
            return f"port {name}" + (f", that of {owner}" if owner else "")
        case ("if", i):
            return f"the way to {i}{_in(state, i)}"
        case ("answer", i):
            return f"answers for the addresses of {i}{_in(state, i)}"
        case ("vn", vni):
            return f"broadcasts and gateway of network {_network(state, vni)}"
        case ("peer", vni, peer):
            return f"what comes from {peer} in network {_network(state, vni)}"
        case ("router", vni):
            return f"the router of network {_network(state, vni)}"
        case ("left", key):
            left = state.left.get(key)
            return "an address that was left" + (f": {format_ip(left.address)} by {left.interface}" if left else "")
        case ("move", number):
            move = state.moves.get(number)
            return f"move {number}" + (f" of {move.vm}" if move else "")
        case ("probes",):
            return "probes of moves"
        case ("expecting",):
            return "announcements at ports to come"
    return "what every NVE has"


def _network(state: State, vni: int) -> str:
    network = state.networks.get(vni)
    return str(vni) if network is None else network.name


def _in(state: State, key: str) -> str:
    interface = state.interfaces.get(key)
    return "" if interface is None else f" in network {_network(state, interface.vni)}"
