"""Flows as text, the way ``ovs-ofctl dump-flows`` writes them, for people and for error reports."""

from __future__ import annotations

from . import addresses
from .flows import IN_PORT, Action, Flow, Meter, Output, ToNva
from .pipeline import TABLES, Why, why_of

_NAMES = {table.number: table.name for table in TABLES}
_MACS = {"eth_src", "eth_dst", "arp_sha", "arp_tha", "nd_sll", "nd_tll"}
_HEX = {"eth_type", "tun_id", "metadata", "vlan_vid"}


def value_text(field: str, value: bytes) -> str:
    """A field's value as people write it."""
    if field in _MACS:
        return addresses.format_mac(value)
    if field in _HEX or field.startswith("oxm_"):
        return hex(int.from_bytes(value, "big"))
    if len(value) in (4, 16) and field != "in_port":
        return addresses.format_ip(value)
    return str(int.from_bytes(value, "big"))


def action_text(action: Action) -> str:
    """One action."""
    if isinstance(action, Output):
        return "in_port" if action.port == IN_PORT else f"output:{action.port}"
    if isinstance(action, ToNva):
        return "nva"
    if isinstance(action, Meter):
        return f"meter:{action.id}"
    return f"set_field:{value_text(action.field, action.value)}->{action.field}"


def describe(flow: Flow) -> str:
    """One line: table, priority, match, actions, and what the flow is for."""
    on = ",".join(f"{f}={value_text(f, v)}" + (f"/{value_text(f, m)}" if m else "") for f, v, m in flow.match)
    does = [action_text(action) for action in flow.actions]
    if flow.write_metadata:
        does.append(f"write_metadata:{flow.write_metadata:#x}")
    if flow.goto is not None:
        does.append(f"goto:{_NAMES.get(flow.goto, flow.goto)}")
    why = why_of(flow.cookie)
    purpose = "foreign" if why is None else why[0].name.lower()
    table = _NAMES.get(flow.table, str(flow.table))
    idle = f" idle_timeout={flow.idle_timeout}" if flow.idle_timeout else ""
    return f"{table} priority={flow.priority}{idle} {on or 'any'} actions={','.join(does) or 'drop'} ({purpose})"


__all__ = ["Why", "action_text", "describe", "value_text"]
