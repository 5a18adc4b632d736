"""What has to hold of networks that are routed, before any is registered or changed."""

from __future__ import annotations

from . import addresses
from .errors import Conflict, InvalidInput, NotFound
from .model import PROBE_IDENTIFIER, Interface, Network
from .proposals import whose
from .state import State


def check(state: State, old: Network | None, new: Network) -> None:
    """Raise InvalidInput, NotFound or Conflict unless a network can stand beside all others.

    Networks of one router share the gateway's MAC, since a packet's domain and that MAC are what it is routed by, and
    no address is in two of them.
    """
    if old is not None and old.kind is not new.kind and any(True for _ in state.in_network(new.vni)):
        raise Conflict(f"network {new.name} has interfaces: its kind cannot change", network=new.name, field="kind")
    for n, subnet in enumerate(new.subnets):
        # A subnet sleeps that was registered before its NVE was withdrawn.
        if subnet.nve not in state.nves and (old is None or subnet not in old.subnets):
            raise NotFound(f"there is no NVE {subnet.nve}", nve=subnet.nve, field=f"subnets.{n}.nve")
    others = [n for n in state.networks.values() if n.vni != new.vni]
    peers = [n for n in others if new.router is not None and (n.tenant, n.router) == (new.tenant, new.router)]
    _subnets(new, peers)
    _gateways(state, old, new, peers)
    for other in peers:
        assert new.gateway is not None and other.gateway is not None  # schema.py: a router's networks have one
        if other.gateway.mac != new.gateway.mac:
            message = f"network {other.name} of router {new.router} has another gateway MAC"
            raise Conflict(message, network=other.name, field="gateway.mac")
        twice = _inside(state, other.vni).keys() & _inside(state, new.vni).keys()
        if twice:
            text = addresses.format_ip(min(twice))
            raise Conflict(f"{text} is in network {other.name} of router {new.router}, too", network=other.name)
    if new.sir is None:
        return
    for other in others:
        if other.sir == new.sir:
            message = f"SIR prefix {addresses.format_half(new.sir)} belongs to network {other.name}"
            raise Conflict(message, network=other.name, field="sir")
    for nve in state.nves.values():
        if nve.locator == new.sir:
            message = f"SIR prefix {addresses.format_half(new.sir)} is the locator of NVE {nve.name}"
            raise Conflict(message, nve=nve.name, field="sir")
    if old is None or old.sir != new.sir:
        _become_identifiers(state, new, new.sir)


def _become_identifiers(state: State, new: Network, sir: bytes) -> None:
    """Raise InvalidInput or Conflict unless the addresses that a network's guests have under its new SIR prefix can
    be reached by ILA."""
    for ip in state.promised_in(new.vni):
        if ip[:8] == sir and len(ip) == 16:
            message = f"an open move changes {addresses.format_ip(ip)}, which is under the SIR prefix: try later"
            raise Conflict(message, network=new.name, field="sir")
    for i in state.in_network(new.vni):
        _check_identifiers(state, state.interfaces[i], sir, "sir")


def _subnets(new: Network, peers: list[Network]) -> None:
    known = [(n.name, s) for n in peers for s in n.subnets]
    for n, subnet in enumerate(new.subnets):
        for name, other in known:
            if other.prefix in subnet or subnet.prefix in other:
                text = addresses.format_prefix(other.prefix, other.length)
                message = f"subnet {text} of network {name} has addresses in common"
                raise Conflict(message, network=name, field=f"subnets.{n}.prefix")
        known.append((new.name, subnet))


def _inside(state: State, vni: int) -> dict[bytes, str]:
    """The addresses of a network's interfaces, those of open moves included, and whose they are."""
    found = dict.fromkeys(state.promised_in(vni), "a task, by a move that is open")
    found.update({a: i for i in state.in_network(vni) for a in _addresses(state.interfaces[i])})
    return found


def _gateways(state: State, old: Network | None, new: Network, peers: list[Network]) -> None:
    """No guest of networks that are routed together has, or is about to have, the address of a gateway."""
    if new.gateway is None or (old is not None and (old.gateway, old.router) == (new.gateway, new.router)):
        return
    for network in (new, *peers):
        inside = _inside(state, network.vni)
        for gateway in {g for n in (new, *peers) if (g := n.gateway) is not None}:
            for ip in (gateway.ipv4, gateway.ipv6):
                if ip in inside:
                    message = f"{addresses.format_ip(ip)} in network {network.name} belongs to {inside[ip]}"
                    raise Conflict(message, network=network.name, field="gateway")


def check_promised(state: State, interface: Interface, where: str) -> None:
    """Raise Conflict if an interface would have an address that an open move of another one changes: what it gives up
    is its own until the move has ended, and what it will have is promised."""
    for ip in _addresses(interface):
        for holder, move in state.claims(interface.vni, ip):
            if move is not None and holder != interface.id:
                network = state.networks[interface.vni].name
                message = f"{addresses.format_ip(ip)} in network {network} belongs to {whose(holder, move)}"
                raise Conflict(message, interface=holder, move=move, field=f"{where}.address")


def check_interface(state: State, interface: Interface, where: str) -> None:
    """Raise InvalidInput or Conflict unless an interface's addresses can be routed: none is the gateway's, and
    identifiers of ILA are nobody else's, since locators carry them for all networks."""
    for vni in state.domain(interface.vni):
        gateway = state.gateway(vni)
        for ip in _addresses(interface) if gateway is not None else ():
            if gateway is not None and ip in (gateway.ipv4, gateway.ipv6):
                message = f"{addresses.format_ip(ip)} is the gateway of network {state.networks[vni].name}"
                raise InvalidInput(message, field=f"{where}.address")
    sir = state.networks[interface.vni].sir
    if sir is not None:
        _check_identifiers(state, interface, sir, f"{where}.address", f"{where}.shared")


def _check_identifiers(state: State, interface: Interface, sir: bytes, field: str, shared: str | None = None) -> None:
    """Raise InvalidInput or Conflict unless an interface's addresses under an SIR prefix can be reached by ILA.

    ``field``: what refusals name; ``shared``: that of an address that it shares with others.
    """
    for ip in (*interface.ipv6, *interface.shared):
        if len(ip) != 16 or ip[:8] != sir:
            continue
        if ip in interface.shared:
            raise InvalidInput(f"{addresses.format_ip(ip)} is reached by ILA, at one task", field=shared or field)
        if ip[8:] == PROBE_IDENTIFIER:
            raise InvalidInput(f"{addresses.format_ip(ip)} is reserved for probes", field=field)
        for other in state.networks.values():
            if other.sir is None or other.vni == interface.vni:
                continue
            rival = state.by_ip.get((other.vni, other.sir + ip[8:]))
            if rival is not None and rival != interface.id:
                message = f"the identifier of {addresses.format_ip(ip)} belongs to {rival}"
                raise Conflict(message, interface=rival, field=field)


def _addresses(interface: Interface) -> tuple[bytes, ...]:
    return (*interface.ipv4, *interface.ipv6, *interface.shared)
