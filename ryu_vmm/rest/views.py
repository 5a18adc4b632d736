"""The NVA's values as JSON documents (``documents`` has their shapes), for REST and the event stream alike."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sized
from typing import Any

from .. import addresses, model
from ..state import State
from ..waiting import waiting
from . import findings
from .findings import timestamp

__all__ = [
    "directory_entry",
    "event",
    "history",
    "interface",
    "move",
    "name",
    "network",
    "nve",
    "plain",
    "timestamp",
    "vm",
    "waits",
]

Doc = dict[str, Any]


def _ip(address: bytes | None) -> str | None:
    return None if address is None else addresses.format_ip(address)


def _place(place: model.Place) -> Doc:
    return {"nve": place.nve, "port": place.port}


def _network_name(state: State, vni: int) -> str | None:
    found = state.networks.get(vni)
    return None if found is None else found.name


def _count(things: Iterable[object]) -> int:
    return len(things) if isinstance(things, Sized) else sum(1 for _ in things)


def _generation(state: State, name: str) -> Doc:
    programmed, realised = state.generations.get(name, (0, 0))
    return {"programmed": programmed, "realised": realised}


def _until(at: float | None) -> str | None:
    return None if at is None else timestamp(at)


def nve(state: State, value: model.Nve, *, ports: bool = False) -> Doc:
    """An NVE, with its ports if asked for."""
    session = state.sessions.get(value.name)
    document: Doc = {
        "name": value.name,
        "dpid": addresses.format_dpid(value.dpid),
        "ipv4": _ip(value.ipv4),
        "ipv6": _ip(value.ipv6),
        "tunnel_port": value.tunnel_port,
        "certificate": value.certificate,
        "routed_port": value.routed_port,
        "locator": None if value.locator is None else addresses.format_half(value.locator),
        "ila_port": value.ila_port,
        "next_hop": _ip(value.next_hop),
        "connected": session is not None,
        "tls": session is not None and session.names is not None,
        "in_sync": session is not None and session.synced,
        "tunnel": None if session is None else session.tunnel,
        "routed": None if session is None else session.routed,
        "ila": None if session is None else session.ila,
        "answers": [] if session is None else [question.value for question in session.answers],
        "generation": _generation(state, value.name),
        "fault": findings.fault(state, value.name),
        "lacking": findings.lacking(state.lacking.get(value.name)),
        "broken": findings.broken(state, value.name),
        "evacuation": state.evacuating.get(value.name),
        "networks": sorted(filter(None, (_network_name(state, v) for v in state.networks_of(value.name)))),
    }
    if ports:
        found = (state.ports[(value.name, name)] for name in state.ports_of(value.name))
        document["ports"] = [
            {
                "name": port.name,
                "number": port.number,
                "up": port.up,
                "silenced": _until(state.silenced.get(model.Place(port.nve, port.name))),
            }
            for port in sorted(found, key=lambda port: port.number)
        ]
    return document


def network(state: State, value: model.Network) -> Doc:
    """A network."""
    policy = value.policy
    return {
        "name": value.name,
        "vni": value.vni,
        "tenant": value.tenant,
        "policy": {
            "distribution": policy.distribution,
            "announcements": policy.announcements,
            "unknown": policy.unknown,
            "admit": policy.admit,
            "mtu": policy.mtu,
            "idle_timeout": policy.idle_timeout,
            "allow": list(policy.allow),
            "leave": _leave(policy.leave),
        },
        "kind": value.kind,
        "gateway": None if value.gateway is None else _gateway(value.gateway),
        "subnets": [{"prefix": addresses.format_prefix(s.prefix, s.length), "nve": s.nve} for s in value.subnets],
        "sir": None if value.sir is None else addresses.format_half(value.sir),
        "router": value.router,
        "members": sorted(state.members(value.vni)),
        "interfaces": _count(state.in_network(value.vni)),
    }


def _leave(value: model.Leave) -> Doc:
    return {"answer": value.answer, "seconds": value.seconds}


def _gateway(value: model.Gateway) -> Doc:
    return {"ipv4": _ip(value.ipv4), "ipv6": _ip(value.ipv6), "mac": addresses.format_mac(value.mac)}


def interface(state: State, value: model.Interface) -> Doc:
    """An interface of a VM."""
    return {
        "name": value.name,
        "network": _network_name(state, value.vni),
        "vni": value.vni,
        "mac": addresses.format_mac(value.mac),
        "ipv4": [addresses.format_ip(ip) for ip in value.ipv4],
        "ipv6": [addresses.format_ip(ip) for ip in value.ipv6],
        "nve": value.location.nve,
        "port": value.location.port,
        "bound": state.port_at(value.location) is not None,
        "pending": value.pending and value.pending.port,
        "epoch": value.epoch,
        "since": timestamp(value.since),
        "attachments": [_place(place) for place in value.attachments],
        "allow": list(value.allow),
        "dns": value.dns,
        "frozen": _frozen(state.frozen.get(value.id)),
        "left": [_left(left) for left in state.left_by(value.id)],
        "shared": [{"address": addresses.format_ip(a), **_shared(state, value.vni, a)} for a in value.shared],
        "shared_macs": [{**_shared(state, value.vni, a), "mac": addresses.format_mac(a)} for a in value.shared_macs],
        "unadmitted": [
            findings.unadmitted(seen) for seen in state.unadmitted.get(value.location, ()) if seen.interface == value.id
        ],
    }


def _shared(state: State, vni: int, address: bytes) -> Doc:
    """Who holds what interfaces share."""
    row = state.holder_of(vni, address)
    if row is None:
        return {"holder": None, "mac": None, "since": None}
    return {"holder": row.interface, "mac": addresses.format_mac(row.mac), "since": timestamp(row.since)}


def _left(value: model.Left) -> Doc:
    return {
        "nve": value.nve,
        "address": addresses.format_ip(value.address),
        "locator": value.ila,
        "answer": value.answer,
        "until": timestamp(value.until),
    }


def _frozen(value: model.Frozen | None) -> Doc | None:
    if value is None:
        return None
    return {
        "since": timestamp(value.since),
        "until": timestamp(value.until) if value.until else None,
        "moves": value.moves,
    }


def newest_move(state: State, value: model.Vm) -> int | None:
    """Number of the newest open move of a VM, None if none is open."""
    numbers = (found.id for i in value.interfaces for found, _ in state.moves_of(i))
    return max(numbers, default=None)


def vm(state: State, value: model.Vm) -> Doc:
    """A VM with its interfaces."""
    return {
        "name": value.name,
        "tenant": value.tenant,
        "interfaces": [interface(state, state.interfaces[i]) for i in value.interfaces],
        "leave": None if value.leave is None else _leave(value.leave),
        "move": newest_move(state, value),
    }


def directory_entry(state: State, value: model.Interface) -> Doc:
    """Where an interface is."""
    home = state.nves.get(value.location.nve)
    return {
        "network": _network_name(state, value.vni),
        "vni": value.vni,
        "mac": addresses.format_mac(value.mac),
        "ipv4": [addresses.format_ip(ip) for ip in value.ipv4],
        "ipv6": [addresses.format_ip(ip) for ip in value.ipv6],
        "vm": value.vm,
        "interface": value.name,
        "nve": value.location.nve,
        "port": value.location.port,
        "nve_ipv4": None if home is None else _ip(home.ipv4),
        "nve_ipv6": None if home is None else _ip(home.ipv6),
        "bound": state.port_at(value.location) is not None,
        "epoch": value.epoch,
        "since": timestamp(value.since),
    }


def name(state: State, key: str) -> Doc:
    """A name and what became of telling name servers."""
    value, failure = state.names[key], state.unpublished.get(key)
    return {
        "name": key,
        "tenant": value.tenant,
        "interfaces": sorted(state.named(key)),
        "wanted": [addresses.format_ip(ip) for ip in value.wanted],
        "told": None if value.told is None else [addresses.format_ip(ip) for ip in value.told],
        "published": value.told == value.wanted,
        "since": timestamp(value.since),
        "failure": None
        if failure is None
        else {
            "why": failure.why,
            "time": timestamp(failure.at),
            "times": failure.times,
            "retry": _until(failure.retry),
        },
    }


# --- moves --------------------------------------------------------------------------------------------------
def move(state: State, value: model.Move) -> Doc:
    """A move with its history and ledger."""
    return {
        "id": value.id,
        "vm": value.vm,
        "tenant": value.tenant,
        "kind": value.kind,
        "trigger": value.trigger,
        "source": value.source,
        "destination": value.destination,
        "underlay": {name: _underlay(state, name) for name in (value.source, value.destination)},
        "state": value.state,
        "open": value.open,
        "created": timestamp(value.created),
        "triggered": timestamp(value.triggered) if value.triggered else None,
        "request_id": value.request_id,
        "requested_by": value.requested_by,
        "follows": value.follows,
        "activated_by": value.activated_by,
        "error": value.error,
        "redirect": value.redirect,
        "redirect_in_force": value.open and value.redirect is model.Redirect.IN_FORCE,
        "unconfirmed": list(value.unconfirmed),
        "generation": _move_generation(state, value),
        **waits(state, value),
        "legs": [
            {
                "interface": leg.interface.partition("/")[2],
                "network": _network_name(state, leg.vni),
                "vni": leg.vni,
                "source": _place(leg.src),
                "destination": _place(leg.dst),
                "mark": leg.mark,
            }
            for leg in value.legs
        ],
        "connections": value.connections,
        "addresses": [
            {"interface": c.interface, "old": addresses.format_ip(c.old), "new": addresses.format_ip(c.new)}
            for c in value.changes
        ],
        "history": history(value.history),
        "ledger": _ledger(value.ledger),
    }


def _underlay(state: State, name: str) -> Doc:
    found = state.nves.get(name)
    return {"ipv4": None, "ipv6": None} if found is None else {"ipv4": _ip(found.ipv4), "ipv6": _ip(found.ipv6)}


def waits(state: State, value: model.Move | None) -> Doc:
    """What a move waits for, on which NVEs, and until when; nothing of the kind if there is none."""
    found = None if value is None else waiting(state, value)
    if found is None:
        return {"waiting_for": None, "waiting_on": [], "until": None}
    return {"waiting_for": found.what, "waiting_on": list(found.on), "until": _until(found.until)}


def history(steps: tuple[model.Step, ...]) -> list[Doc]:
    """States entered, with how long each lasted."""
    ends: list[float | None] = [step.at for step in steps[1:]]
    ends.append(None)
    return [
        {
            "state": step.state,
            "time": timestamp(step.at),
            "at": step.at,
            "seconds": None if end is None else round(end - step.at, 6),
            "why": step.why,
        }
        for step, end in zip(steps, ends, strict=True)
    ]


def _move_generation(state: State, value: model.Move) -> Doc:
    """How far the NVEs concerned have come.

    A generation number counts steps that programmed *any* switch, so an NVE that has acknowledged all it was
    sent is as far as the whole, however low the number of its own last program.
    """
    concerned = {value.source, value.destination}
    if value.open:
        for leg in value.legs:
            concerned.update(state.members(leg.vni))
    nves = {name: _generation(state, name) for name in sorted(concerned) if name in state.generations}
    behind = [g["realised"] for g in nves.values() if g["realised"] < min(g["programmed"], value.generation)]
    return {"desired": value.generation, "realised": min(behind, default=value.generation), "nves": nves}


def _ledger(value: model.Ledger) -> Doc:
    return {
        "closed": value.closed,
        "redirected": {"packets": value.redirected_packets, "bytes": value.redirected_bytes},
        "arrived": {"packets": value.arrived_packets, "bytes": value.arrived_bytes},
        "unaccounted": value.unaccounted,
        "lost": {"packets": value.lost_packets, "bytes": value.lost_bytes},
        "held": {"packets": value.held_packets, "lost": value.held_lost},
        "dropped": {"packets": value.dropped_packets},
        "late_packets": value.late_packets,
        "exact": value.exact,
        "forgetful": list(value.forgetful),
        "unread": list(value.unread),
        "ports": [findings.port_account(name, account) for name, account in sorted(value.ports.items())],
        "stale": [
            {
                "nve": name,
                "packets": stale.packets,
                "bytes": stale.bytes,
                "until": stale.until,
                "corrected": stale.corrected,
            }
            for name, stale in sorted(value.stale.items())
        ],
        "barriers": dict(sorted(value.barriers.items())),
        "probes": dict(sorted(value.probes.items())),
    }


# --- events -------------------------------------------------------------------------------------------------
def event(number: str, at: float, kind: str, fields: Mapping[str, object]) -> Doc:
    """An entry of the event stream."""
    return {
        "id": number,
        "time": timestamp(at),
        "at": at,
        "kind": kind,
        "fields": {name: plain(value) for name, value in fields.items()},
    }


def plain(value: object) -> Any:
    """JSON-compatible twin of what an event's field or an error's detail may hold; bytes become addresses."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes | bytearray):
        if len(value) == 6:
            return addresses.format_mac(bytes(value))
        return addresses.format_ip(bytes(value)) if len(value) in (4, 16) else value.hex()
    if isinstance(value, model.Place):
        return _place(value)
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        items = [plain(item) for item in value]
        return sorted(items, key=str) if isinstance(value, set | frozenset) else items
    return str(value)
