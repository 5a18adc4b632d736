"""The things the NVA knows: NVEs, networks, VMs, interfaces, ports, moves, evacuations, names.

All are immutable values; a change replaces one. Addresses are network-order bytes (6 for MAC, 4 for IPv4, 16 for
IPv6): what a packet carries is what is looked up. ``ryu_vmm.addresses`` converts text at the borders.
"""

from __future__ import annotations

from .answers import Changed, Holder, Vanished, answer_key
from .evacuations import Evacuation, EvacuationState, Evacuee, EvacueeState
from .moves import (
    OFF,
    Addressing,
    Change,
    Connections,
    Held,
    Kind,
    Ledger,
    Left,
    Leg,
    Move,
    MoveState,
    PortAccount,
    Redirect,
    Sought,
    Stale,
    Step,
)
from .naming import Published, Unpublished
from .networks import (
    Admit,
    Allowed,
    Answer,
    Distribution,
    Gateway,
    Leave,
    Network,
    NetworkKind,
    Policy,
    Subnet,
    Trust,
    Unknown,
)
from .numbers import MARK_BASE, MARKS, METER_SLOTS, PROBE_IDENTIFIER, PROBE_PROTOCOL, PROBE_VNI, VNI_RESERVED
from .places import Fault, Frozen, Interface, Nve, Place, Port, Question, Session, Vm

__all__ = [
    "MARKS",
    "MARK_BASE",
    "METER_SLOTS",
    "OFF",
    "PROBE_IDENTIFIER",
    "PROBE_PROTOCOL",
    "PROBE_VNI",
    "VNI_RESERVED",
    "Addressing",
    "Admit",
    "Allowed",
    "Answer",
    "Change",
    "Changed",
    "Connections",
    "Distribution",
    "Evacuation",
    "EvacuationState",
    "Evacuee",
    "EvacueeState",
    "Fault",
    "Frozen",
    "Gateway",
    "Held",
    "Holder",
    "Interface",
    "Kind",
    "Leave",
    "Ledger",
    "Left",
    "Leg",
    "Move",
    "MoveState",
    "Network",
    "NetworkKind",
    "Nve",
    "Place",
    "Policy",
    "Port",
    "PortAccount",
    "Published",
    "Question",
    "Redirect",
    "Session",
    "Sought",
    "Stale",
    "Step",
    "Subnet",
    "Trust",
    "Unknown",
    "Unpublished",
    "Vanished",
    "Vm",
    "answer_key",
]
