"""What an OpenFlow 1.3 switch refuses, and what one match says about another (sections 6.4, 7.2.3, 7.4.4)."""

from __future__ import annotations

from collections.abc import Mapping

from ..flows import FIELDS, Copy, DecTtl, Flow, Match, Meter, Output, SetField
from . import packets

#: OpenFlow error types (ofp_error_type).
BAD_REQUEST, BAD_ACTION, BAD_INSTRUCTION, BAD_MATCH, FLOW_MOD_FAILED = 1, 2, 3, 4, 5
TABLE_FULL = 1  # OFPFMFC_TABLE_FULL
LAST_TABLE = 0xFE

_NO_MASK = frozenset(
    ("in_port", "eth_type", "ip_proto", "ip_ttl", "arp_op", "icmpv4_type", "icmpv6_type", "icmpv6_code")
)
_UNSETTABLE = frozenset(("in_port", "eth_type", "ip_proto"))


def _need(names: str, *conditions: tuple[str, tuple[int, ...]]) -> dict[str, tuple[tuple[str, tuple[int, ...]], ...]]:
    return dict.fromkeys(names.split(), conditions)


# what has to be matched exactly, with one of these values, before a field may be used (section 7.2.3.8)
_NEEDS = {
    **_need("ipv4_src ipv4_dst", ("eth_type", (packets.IPV4,))),
    **_need("ipv6_src ipv6_dst", ("eth_type", (packets.IPV6,))),
    **_need("arp_op arp_spa arp_tpa arp_sha arp_tha", ("eth_type", (packets.ARP, packets.RARP))),
    **_need("ip_proto ip_frag ip_ttl", ("eth_type", (packets.IPV4, packets.IPV6))),
    **_need("icmpv4_type", ("eth_type", (packets.IPV4,)), ("ip_proto", (packets.ICMP,))),
    **_need("udp_src udp_dst", ("ip_proto", (packets.UDP,))),
    **_need("icmpv6_type icmpv6_code", ("eth_type", (packets.IPV6,)), ("ip_proto", (packets.ICMPV6,))),
    **_need("nd_target nd_reserved nd_options_type", ("icmpv6_type", (packets.NS, packets.NA))),
    **_need("nd_sll", ("icmpv6_type", (packets.NS,))),
    **_need("nd_tll", ("icmpv6_type", (packets.NA,))),
}


class Refused(Exception):
    """A request that a switch answers with an error; ``type`` and ``code`` are OpenFlow's (section 7.4.4)."""

    def __init__(self, message: str, type: int, code: int) -> None:
        super().__init__(message)
        self.type = type
        self.code = code


def check(flow: Flow, nd: bool = True) -> None:
    """Refuse a flow that Open vSwitch refuses: prerequisites, masks, actions, backward goto.

    ``nd``: its datapath can write what neighbor discovery says beside addresses; the one in the kernel cannot.

    Raises:
        Refused: with the error type and code it answers with.
    """
    exact: dict[str, int] = {}
    names = set()
    for name, value, mask in flow.match:
        if name not in FIELDS:
            raise Refused(f"{name} is not known", BAD_MATCH, 6)  # OFPBMC_BAD_FIELD
        if name in names:
            raise Refused(f"{name} is matched twice", BAD_MATCH, 10)  # OFPBMC_DUP_FIELD
        names.add(name)
        if mask is None:
            exact[name] = int.from_bytes(value, "big")
        elif name in _NO_MASK:
            raise Refused(f"{name} cannot be masked", BAD_MATCH, 8)  # OFPBMC_BAD_MASK
        elif int.from_bytes(value, "big") & ~int.from_bytes(mask, "big"):
            raise Refused(f"{name} has bits outside of its mask", BAD_MATCH, 5)  # OFPBMC_BAD_WILDCARDS
    for name in names:
        if lacking := _lacking(name, exact):
            raise Refused(f"{name} without {lacking}", BAD_MATCH, 9)  # OFPBMC_BAD_PREREQ
    for action in flow.actions:
        if isinstance(action, SetField):
            if action.field not in FIELDS:  # an action or instruction that the codec has no word for
                instruction = action.field.startswith("instruction")
                raise Refused(f"{action.field} is not known", BAD_INSTRUCTION if instruction else BAD_ACTION, 0)
            _settable(action.field, exact)
            if not nd and action.field in ("nd_reserved", "nd_options_type"):
                raise Refused(f"{action.field} cannot be set here", BAD_ACTION, 15)  # OFPBAC_BAD_SET_ARGUMENT
        elif isinstance(action, Copy):
            _settable(action.target, exact)
            if lacking := _lacking(action.source, exact):
                raise Refused(f"copying {action.source} without matching {lacking}", BAD_ACTION, 10)
        elif isinstance(action, DecTtl) and _lacking("ip_ttl", exact):  # OFPBAC_MATCH_INCONSISTENT
            raise Refused("a TTL is decremented without matching eth_type", BAD_ACTION, 10)
        elif isinstance(action, Meter) and action is not flow.actions[0]:
            raise Refused("a meter comes first", BAD_INSTRUCTION, 0)  # OFPBIC_UNKNOWN_INST
        elif isinstance(action, Output) and action.port == 0:
            raise Refused("output to port 0", BAD_ACTION, 4)  # OFPBAC_BAD_OUT_PORT
    if not 0 <= flow.table <= LAST_TABLE:
        raise Refused(f"there is no table {flow.table}", FLOW_MOD_FAILED, 2)  # OFPFMFC_BAD_TABLE_ID
    if flow.goto is not None and not flow.table < flow.goto <= LAST_TABLE:  # OFPBIC_BAD_TABLE_ID
        raise Refused(f"goto from table {flow.table} to {flow.goto}", BAD_INSTRUCTION, 2)


def _settable(name: str, exact: Mapping[str, int]) -> None:
    if name in _UNSETTABLE:
        raise Refused(f"{name} cannot be set", BAD_ACTION, 13)  # OFPBAC_BAD_SET_TYPE
    if lacking := _lacking(name, exact):  # OFPBAC_MATCH_INCONSISTENT
        raise Refused(f"setting {name} without matching {lacking}", BAD_ACTION, 10)


def _lacking(name: str, exact: Mapping[str, int]) -> str:
    for needed, values in _NEEDS.get(name, ()):
        if exact.get(needed) not in values:
            return needed
        if deeper := _lacking(needed, exact):
            return deeper
    return ""


def comprises(wide: Match, narrow: Match) -> bool:
    """Whether ``wide`` matches every packet that ``narrow`` does, judged field by field (section 6.4)."""
    have = {name: (value, mask) for name, value, mask in narrow}
    for name, value, mask in wide:
        if name not in have:
            return False
        narrow_value, narrow_mask = have[name]
        full = (1 << 8 * len(value)) - 1
        bits = int.from_bytes(mask, "big") if mask is not None else full
        narrow_bits = int.from_bytes(narrow_mask, "big") if narrow_mask is not None else full
        if bits & ~narrow_bits:
            return False
        if (int.from_bytes(value, "big") ^ int.from_bytes(narrow_value, "big")) & bits:
            return False
    return True
