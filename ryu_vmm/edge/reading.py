"""What a host has: a bridge with its ports, controllers, flows, and the links beneath, as values."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..agent.faults import HostError
from ..tables import COOKIE_MASK, COOKIE_OURS
from .host import Host

__all__ = ["Controller", "Found", "Link", "Port", "read"]

_HIDDEN = 65535
"""The highest priority that OpenFlow can give; flows above it are Open vSwitch's own, of in-band control."""


@dataclass(frozen=True)
class Port:
    """An interface of a bridge: its type ("" is the system's), options, and what Open vSwitch says is wrong with it."""

    name: str
    type: str
    options: dict[str, str]
    error: str | None = None


@dataclass(frozen=True)
class Controller:
    """A controller's row. ``set_at``: seconds since the epoch at which `vmm nve setup` set it; None: it did not."""

    target: str
    connection_mode: str | None
    max_backoff: int | None
    inactivity_probe: int | None
    connected: bool
    set_at: int | None


@dataclass(frozen=True)
class Link:
    """A network interface of the host: MTU, transmit queue in frames, is it a tap, does it leave checksums undone."""

    mtu: int
    queue: int
    tap: bool = False
    unchecked: bool = False


@dataclass(frozen=True)
class Found:
    """What there is of one bridge; ``bridge`` is its row, None where there is none."""

    name: str
    bridge: dict[str, Any] | None
    ports: dict[str, Port] = field(default_factory=dict)
    controllers: Sequence[Controller] = ()
    others: dict[str, str] = field(default_factory=dict)  # other bridges of the host -> datapath id
    tunnels: dict[str, str] = field(default_factory=dict)  # tunnel ports of other bridges -> their bridge
    links: dict[str, Link] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)  # address -> link that has it
    uplinks: Sequence[str] = ()  # the underlay links that the userspace datapath holds
    started: float | None = None  # seconds since the epoch at which ovs-vswitchd began; None: it does not run
    hidden: int = 0  # flows above all that OpenFlow can see
    foreign: Sequence[str] = ()  # flows that are not the NVA's
    ssl: bool = False  # a key, a certificate and an authority are set


def read(host: Host, bridge: str) -> Found:
    """All that `checking.findings` looks at. Raises HostError where Open vSwitch's database does not answer."""
    bridges = {row["name"]: row for row in _table(
        host, "Bridge", "name,datapath_id,datapath_type,fail_mode,protocols,other_config,external_ids,controller,ports",
    )}  # fmt: skip
    ours = bridges.get(bridge)
    interfaces = {row["_uuid"]: row for row in _table(host, "Interface", "_uuid,name,type,options,ofport,error")}
    of_port = {row["_uuid"]: _list(row["interfaces"]) for row in _table(host, "Port", "_uuid,interfaces")}
    ports = {
        name: [_port(interfaces[one]) for port in _list(row["ports"]) for one in of_port.get(port, ())]
        for name, row in bridges.items()
    }
    others = {name: str(row["datapath_id"] or "") for name, row in bridges.items() if name != bridge}
    tunnels = {p.name: name for name in others for p in ports[name] if p.type in ("vxlan", "gre", "geneve", "ip6gre")}
    if ours is None:
        return Found(bridge, None, others=others, tunnels=tunnels)
    rows = {row["_uuid"]: row for row in _table(
        host, "Controller", "_uuid,target,connection_mode,max_backoff,inactivity_probe,is_connected,external_ids",
    )}  # fmt: skip
    held = [name for name in others if bridges[name]["datapath_type"] == "netdev"]
    uplinks = [port.name for name in held for port in ports[name] if port.type == ""]
    hidden, foreign = _flows(host, bridge)
    return Found(
        bridge, ours, {port.name: port for port in ports[bridge]},
        [_controller(rows[one]) for one in _list(ours["controller"])], others, tunnels,
        _links(host, uplinks), _addresses(host), uplinks, _started(host),
        hidden, foreign, bool(_table(host, "SSL", "private_key")),
    )  # fmt: skip


# --- Open vSwitch's database ------------------------------------------------------------------------------------------
def _table(host: Host, table: str, columns: str) -> list[dict[str, Any]]:
    document = json.loads(host.run("ovs-vsctl", "--format=json", f"--columns={columns}", "list", table))
    return [dict(zip(document["headings"], map(_value, row), strict=True)) for row in document["data"]]


def _value(value: Any) -> Any:
    """A value of the database's JSON (RFC 7047 section 5.1): maps, sets and ids as Python has them; none is None."""
    if isinstance(value, list):
        kind, inner = value
        if kind == "map":
            return {key: _value(each) for key, each in inner}
        if kind == "set":
            return [_value(each) for each in inner] or None
        return inner
    return value


def _list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _port(row: dict[str, Any]) -> Port:
    made = isinstance(row["ofport"], int) and row["ofport"] > 0
    kind = row["type"] if row["type"] != "system" else ""
    return Port(row["name"], kind, row["options"] or {}, row["error"] or (None if made else "it could not be made"))


def _controller(row: dict[str, Any]) -> Controller:
    set_at = row["external_ids"].get("vmm-set-at", "")
    return Controller(
        row["target"], row["connection_mode"], row["max_backoff"], row["inactivity_probe"], bool(row["is_connected"]),
        int(set_at) if set_at.isdecimal() else None,
    )  # fmt: skip


# --- its daemon -------------------------------------------------------------------------------------------------------
def _started(host: Host) -> float | None:
    """When the ovs-vswitchd that owns the control socket began: its start in clock ticks, and the boot's time."""
    control = host.control
    if control is None:
        return None
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(2.0)
            sock.connect(str(control))
            pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - now + ticks / os.sysconf("SC_CLK_TCK")


def _flows(host: Host, bridge: str) -> tuple[int, list[str]]:
    """How many hidden flows there are, and the flows that others than an NVA made. Nothing where it does not run."""
    control = host.control
    if control is None:
        return 0, []
    hidden, foreign = 0, []
    try:
        every = host.run("ovs-appctl", "-t", str(control), "bridge/dump-flows", bridge)
        visible = host.run("ovs-ofctl", "-OOpenFlow13", "dump-flows", bridge)
    except HostError:  # it ends, or speaks no OpenFlow 1.3: that is found elsewhere
        return 0, []
    for line in every.splitlines():
        priority = re.search(r"\bpriority=(\d+)", line)
        hidden += priority is not None and int(priority[1]) > _HIDDEN
    for line in visible.splitlines():
        cookie = re.search(r"\bcookie=0x([0-9a-f]+)", line)
        if cookie and int(cookie[1], 16) & COOKIE_MASK != COOKIE_OURS:
            match, _, actions = line.partition(" actions=")
            table = re.search(r"\btable=\d+", line)
            foreign.append(f"{table[0] if table else 'table=0'},{match.split(', ')[-1].strip()} actions={actions}")
    return hidden, foreign


# --- its links --------------------------------------------------------------------------------------------------------
def _links(host: Host, uplinks: Sequence[str]) -> dict[str, Link]:
    found = json.loads(host.run("ip", "-json", "-details", "link", "show") or "[]")
    return {
        row["ifname"]: Link(
            int(row["mtu"]), int(row.get("txqlen", 0)), row.get("linkinfo", {}).get("info_kind") == "tun",
            row["ifname"] in uplinks and _unchecked(host, row["ifname"]),
        )
        for row in found
    }  # fmt: skip


def _unchecked(host: Host, name: str) -> bool:
    try:
        return re.search(r"^tx-checksumming: on", host.run("ethtool", "-k", name), re.MULTILINE) is not None
    except HostError:  # no such link any more, or no ethtool
        return False


def _addresses(host: Host) -> dict[str, str]:
    return {
        address["local"]: row["ifname"]
        for row in json.loads(host.run("ip", "-json", "addr", "show") or "[]")
        for address in row.get("addr_info", ()) if "local" in address
    }  # fmt: skip
