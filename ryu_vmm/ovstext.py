"""Flows in the notation of ``ovs-ofctl``, so that what we say can be compared with what the switch prints."""

from __future__ import annotations

from . import addresses
from .flows import IN_PORT, CheckLarger, Copy, DecTtl, Flow, Match, Meter, SetField, ToNva

__all__ = ["actions", "describe", "match"]

_NAMES = {
    "eth_dst": "dl_dst",
    "eth_src": "dl_src",
    "eth_type": "dl_type",
    "ip_proto": "nw_proto",
    "ip_ttl": "nw_ttl",
    "ipv4_src": "nw_src",
    "ipv4_dst": "nw_dst",
    "icmpv4_type": "icmp_type",
    "icmpv6_type": "icmp_type",
    "icmpv6_code": "icmp_code",
    "tun_ipv4_src": "tun_src",
    "tun_ipv4_dst": "tun_dst",
}
_MAC = frozenset({"eth_dst", "eth_src", "arp_sha", "arp_tha", "nd_sll", "nd_tll"})
_IP = frozenset(
    {"ipv4_src", "ipv4_dst", "arp_spa", "arp_tpa", "ipv6_src", "ipv6_dst", "nd_target"}
    | {"tun_ipv4_src", "tun_ipv4_dst", "tun_ipv6_src", "tun_ipv6_dst"}
)
_DECIMAL = frozenset(
    {"in_port", "ip_proto", "ip_ttl", "icmpv4_type", "icmpv6_type", "icmpv6_code", "udp_src", "udp_dst", "arp_op"}
    | {"nd_options_type"}
)
#: ``ip_frag`` has words for what its two bits say.
_FRAGMENTS = {(1, 1): "yes", (0, 1): "no", (1, 3): "first", (3, 3): "later", (0, 2): "not_later", (2, 2): "later"}


def match(flow: Match) -> str:
    """The fields of a match, e.g. ``tun_id=0x64,dl_dst=02:00:00:00:00:01``; empty if it matches everything."""
    parts = []
    for name, value, mask in flow:
        if name == "ip_frag":
            parts.append("ip_frag=" + _FRAGMENTS.get((value[0], 3 if mask is None else mask[0]), "no"))
            continue
        text = _value(name, value)
        if mask is not None:
            text += "/" + _value(name, mask)
        parts.append(f"{_NAMES.get(name, name)}={text}")
    return ",".join(parts)


def actions(flow: Flow) -> str:
    """The instructions of a flow, e.g. ``set_field:0x64->tun_id,output:1``; ``drop`` if there are none."""
    parts = []
    for action in flow.actions:
        if isinstance(action, ToNva):
            parts.append(f"CONTROLLER:{action.max_len}")
        elif isinstance(action, SetField):
            value = _value(action.field, action.value)
            parts.append(f"set_field:{value}->{_written(action.field)}")
        elif isinstance(action, Meter):
            parts.append(f"meter:{action.id}")
        elif isinstance(action, DecTtl):
            parts.append("dec_ttl")
        elif isinstance(action, CheckLarger):
            parts.append(f"check_pkt_larger({action.length})->NXM_NX_REG0[0]")
        elif isinstance(action, Copy):
            parts.append(f"move:{_written(action.source)}[]->{_written(action.target)}[]")
        else:
            parts.append("IN_PORT" if action.port == IN_PORT else f"output:{action.port}")
    if flow.write_metadata:
        parts.append(f"write_metadata:{flow.write_metadata:#x}/{flow.write_metadata:#x}")
    if flow.goto is not None:
        parts.append(f"goto_table:{flow.goto}")
    return ",".join(parts) or "drop"


def describe(flow: Flow) -> str:
    """A whole flow as ``ovs-ofctl`` takes it, e.g. to add it by hand."""
    parts = [f"table={flow.table}", f"priority={flow.priority}", f"cookie={flow.cookie:#x}"]
    if flow.idle_timeout:
        parts.append(f"idle_timeout={flow.idle_timeout}")
    on = match(flow.match)
    if on:
        parts.append(on)
    return ",".join(parts) + f" actions={actions(flow)}"


def _written(name: str) -> str:
    """A field's name where an action writes it: icmp_type alone is IPv4's there."""
    return name if name.startswith("icmpv6_") else _NAMES.get(name, name)


def _value(name: str, value: bytes) -> str:
    if name in _MAC and len(value) == 6:
        return addresses.format_mac(value)
    if name in _IP and len(value) in (4, 16):
        return addresses.format_ip(value)
    number = int.from_bytes(value, "big")
    return str(number) if name in _DECIMAL else f"{number:#x}"
