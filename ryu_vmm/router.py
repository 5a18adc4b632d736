"""What the NVA says as the router that every NVE is to its guests: ICMP and ICMPv6.

The NVE hands over what it cannot route by itself (routing.py), each at a limited rate; see wire/icmp.py for what is
answered how. Answers go to where the sender is now, by the directory, whichever way its packet came.
"""

from __future__ import annotations

from collections.abc import Iterator

from .addresses import link_local
from .events import PacketSeen
from .flows import TABLE, Output
from .model import Gateway, Interface, Left
from .paths import target
from .resolution import reached
from .tables import Why
from .wire import icmp
from .wire.ip import fragment, parse_ip
from .work import Work


class Router:
    """Handlers of packets that could not be routed by flows."""

    def __init__(self, work: Work) -> None:
        self._work = work

    # --- packets ------------------------------------------------------------------------------------------------------
    def seen(self, nve: str, event: PacketSeen, why: Why, vni: int) -> None:
        """A packet that is for the router, or that it cannot send on. Raises DecodeError."""
        state = self._work.state
        gateway = state.gateway(vni)
        packet = parse_ip(event.frame)
        sender = self._sender(vni, packet.src, event.frame[6:12])
        if gateway is None or sender is None:
            self._work.count("drop.no-sender")
            return
        own = self._addresses(sender, gateway)
        mtu = min(state.networks[each].policy.mtu for each in state.domain(vni))
        answer: bytes | None = None
        match why:
            case Why.ROUTER:
                answer = icmp.echo_reply(event.frame, gateway.mac, self._all_addresses(vni))
            case Why.EXPIRED_TTL:
                answer = icmp.time_exceeded(event.frame, gateway.mac, own)
            case Why.UNREACHABLE:
                answer = icmp.unreachable(event.frame, gateway.mac, own, self._why(vni, packet.dst))
            case Why.TOO_BIG if packet.whole:
                answer = icmp.packet_too_big(event.frame, gateway.mac, own, mtu)
            case Why.TOO_BIG:
                for part in fragment(event.frame, mtu):
                    self._work.send(nve, (Output(TABLE),), part, event.in_port)
                self._work.count("router.fragmented")
                return
            case _:
                raise AssertionError(why)
        self._work.count(f"router.{why.name.lower().replace('_', '-')}")
        if answer is not None:
            self._send(sender, answer)

    def _sender(self, vni: int, address: bytes, mac: bytes) -> Interface | None:
        """Whose address it is, or was; guests ask a link-local gateway from their own link-local address (RFC 6724)."""
        state = self._work.state
        found = reached(state, vni, address)
        if found is None:  # an address that it still speaks for
            found = next((left.interface for left in self._left(vni, address)), None)
        if found is None and address == link_local(mac):
            here = (state.mac_owner(each, mac) for each in state.domain(vni))
            found = next((each for each in here if each is not None), None)
        return None if found is None else state.interfaces.get(found)

    def _left(self, vni: int, address: bytes) -> Iterator[Left]:
        """Where an address was left in a network's domain: other tenants may have the same one."""
        state = self._work.state
        here = state.domain(vni)
        return (left for left in state.left_of(address) if left.vni in here)

    def _addresses(self, sender: Interface, gateway: Gateway) -> tuple[bytes, ...]:
        """The router's addresses on the sender's own network."""
        own = self._work.state.gateway(sender.vni) or gateway
        return tuple(address for address in (own.ipv4, own.ipv6) if address is not None)

    def _all_addresses(self, vni: int) -> tuple[bytes, ...]:
        state = self._work.state
        known = (state.gateway(each) for each in state.domain(vni))
        return tuple(a for gateway in known if gateway for a in (gateway.ipv4, gateway.ipv6) if a is not None)

    def _why(self, vni: int, address: bytes) -> icmp.Unreachable:
        """Host, if the address is one of ours though nobody has it; else its network."""
        state = self._work.state
        subnets = (s for each in state.domain(vni) for s in state.networks[each].subnets)
        left = any(True for _ in self._left(vni, address))
        ours = left or reached(state, vni, address) is not None or any(address in subnet for subnet in subnets)
        return icmp.Unreachable.HOST if ours else icmp.Unreachable.NETWORK

    def _send(self, to: Interface, frame: bytes) -> None:
        state = self._work.state
        port = state.port_at(target(state, to))
        if port is None or port.nve not in state.sessions:
            self._work.count("drop.no-sender")
            return
        self._work.send(port.nve, (Output(port.number),), to.mac + frame[6:])


__all__ = ["Router"]
