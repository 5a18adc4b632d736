"""What is missing or wrong in an edge, each with the command that mends it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from .plan import BACKOFF, PROBE, TAP_QUEUE, TUNNEL_OPTIONS, Step, controller_row, overhead, tap_step
from .reading import Controller, Found, Port

__all__ = ["Finding", "Wanted", "findings"]

_VXLAN_PORT = "4789"


@dataclass(frozen=True)
class Wanted:
    """What the edge is meant to be, as far as it is known; None and nothing: what its bridge says of itself."""

    dpid: str | None = None
    addresses: tuple[str, ...] = ()
    controllers: tuple[str, ...] = ()
    mtu: int | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, in a line, and the steps that mend it; none: only a person can."""

    what: str
    mend: tuple[Step, ...] = ()


def _vsctl(*words: str) -> tuple[Step, ...]:
    return (Step("", ("ovs-vsctl", *words)),)


def findings(found: Found, wanted: Wanted) -> list[Finding]:
    """All that is missing or wrong, most severe first."""
    if found.bridge is None:
        there = f"; there are {', '.join(sorted(found.others))}" if found.others else ""
        return [Finding(f"there is no bridge {found.name}{there}: vmm nve setup makes it")]
    return [
        *_isolation(found), *_bridge(found, wanted), *_tunnels(found), *_control(found, wanted), *_links(found, wanted)
    ]  # fmt: skip


def _isolation(found: Found) -> Iterator[Finding]:
    assert found.bridge
    name = found.name
    if found.bridge["other_config"].get("disable-in-band") != "true":
        yield Finding(
            "in-band control is not off: Open vSwitch lets whoever forges the NVA's address past every flow",
            _vsctl("set", "bridge", name, "other-config:disable-in-band=true"),
        )
    if found.hidden:
        yield Finding(
            f"{found.hidden} hidden flows stand above all others (in-band control): tenants meet in them",
            _vsctl("set", "bridge", name, "other-config:disable-in-band=true"),
        )
    if found.bridge["fail_mode"] != "secure":
        yield Finding(
            f"fail mode is {found.bridge['fail_mode'] or 'standalone'}: without the NVA everybody reaches everybody",
            _vsctl("set", "bridge", name, "fail_mode=secure"),
        )
    for flow in found.foreign:
        kind = "forwards past the NVA (NORMAL)" if "NORMAL" in flow else "is not the NVA's"
        match = flow.partition(" actions=")[0]
        yield Finding(
            f"a flow {kind}: {flow}", (Step("", ("ovs-ofctl", "-OOpenFlow13", "--strict", "del-flows", name, match)),)
        )


def _bridge(found: Found, wanted: Wanted) -> Iterator[Finding]:
    assert found.bridge
    name, bridge = found.name, found.bridge
    protocols = bridge["protocols"] if isinstance(bridge["protocols"], list) else [bridge["protocols"]]
    if "OpenFlow13" not in protocols:
        spoken = ", ".join(filter(None, protocols)) or "Open vSwitch's default"
        yield Finding(
            f"the bridge speaks {spoken}, not OpenFlow 1.3 alone",
            _vsctl("set", "bridge", name, "protocols=OpenFlow13"),
        )
    dpid = str(bridge["datapath_id"] or "")
    told = bridge["other_config"].get("datapath-id")
    if wanted.dpid and int(dpid or "0", 16) != int(wanted.dpid, 16):
        yield Finding(
            f"datapath id is {dpid}, not {wanted.dpid}",
            _vsctl("set", "bridge", name, f"other-config:datapath-id={wanted.dpid}"),
        )
    elif dpid and not told:
        yield Finding(
            f"datapath id {dpid} follows from a port's MAC and may change with the ports",
            _vsctl("set", "bridge", name, f"other-config:datapath-id={dpid}"),
        )
    for other, theirs in sorted(found.others.items()):
        if theirs == dpid:
            yield Finding(f"bridge {other} has the same datapath id, {dpid}: give it one of its own")
    if found.started is None:
        yield Finding("ovs-vswitchd does not run, or its control socket is elsewhere: start openvswitch-switch")


def _tunnels(found: Found) -> Iterator[Finding]:
    ports = [port for port in found.ports.values() if port.type in ("vxlan", "gre")]
    if not any(port.type == "vxlan" for port in ports):
        elsewhere = f" (there is {', '.join(sorted(found.tunnels))} in another bridge)" if found.tunnels else ""
        yield Finding(
            f"there is no tunnel port of type vxlan{elsewhere}",
            _vsctl("--may-exist", "add-port", found.name, "vxlan", "--", "set", "interface", "vxlan", "type=vxlan",
                   *(f"options:{key}={value}" for key, value in TUNNEL_OPTIONS.items())),
        )  # fmt: skip
    for port in ports:
        yield from _tunnel(port)
    for port in found.ports.values():
        if port.type in ("geneve", "stt", "lisp", "ip6gre", "erspan", "ip6erspan", "gtpu", "bareudp", "srv6"):
            yield Finding(f"{port.name} is a tunnel of type {port.type}, which the NVA does not use",
                          _vsctl("del-port", found.name, port.name))  # fmt: skip
        elif port.error:
            yield Finding(f"{port.name}: {port.error}")


def _tunnel(port: Port) -> Iterator[Finding]:
    what = {
        "key": "carries no network's number (key=flow), so no edge takes what it sends",
        "remote_ip": "goes to one edge, not where flows say (remote_ip=flow)",
        "local_ip": "does not send from the edge's own address (local_ip=flow)",
        "csum": "sends without checksum: a network's number corrupted on the way is another tenant's (csum=true)",
    }
    for key, value in TUNNEL_OPTIONS.items():
        if port.options.get(key) != value:
            yield Finding(f"{port.name} {what[key]}", _vsctl("set", "interface", port.name, f"options:{key}={value}"))
    if port.type == "vxlan" and port.options.get("dst_port", _VXLAN_PORT) != _VXLAN_PORT:
        yield Finding(
            f"{port.name} uses UDP port {port.options['dst_port']}, other edges {_VXLAN_PORT}",
            _vsctl("remove", "interface", port.name, "options", "dst_port"),
        )
    if port.type == "gre" and port.options.get("packet_type") != "legacy_l3":
        yield Finding(f"{port.name} carries Ethernet headers, as only VXLAN should (packet_type=legacy_l3)",
                      _vsctl("set", "interface", port.name, "options:packet_type=legacy_l3"))  # fmt: skip
    extra = sorted(port.options.keys() - TUNNEL_OPTIONS.keys() - {"dst_port", "packet_type"} - _HARMLESS)
    for key in extra:
        yield Finding(f"{port.name} has options:{key}={port.options[key]}, which other edges do not have",
                      _vsctl("remove", "interface", port.name, "options", key))  # fmt: skip


_HARMLESS = {"tos", "ttl", "df_default", "egress_pkt_mark"}


def _control(found: Found, wanted: Wanted) -> Iterator[Finding]:
    name = found.name
    targets = [one.target for one in found.controllers]
    missing = [one for one in wanted.controllers if one not in targets]
    if not targets and not missing:
        yield Finding("the bridge has no controller", _vsctl("set-controller", name, "tcp:ADDRESS-OF-THE-NVA:6653"))
        return
    rows = (Step("", controller_row(name), rows=True),)
    if missing:
        yield Finding(f"the bridge is not controlled by {', '.join(missing)}",
                      (*_vsctl("set-controller", name, *wanted.controllers), *rows))  # fmt: skip
    for one in found.controllers:
        yield from _controller(found, one, rows)
    if any(target.startswith("ssl:") for target in targets) and not found.ssl:
        yield Finding("a controller is reached by TLS, and there are no key, certificate and authority",
                      _vsctl("set-ssl", "KEY", "CERTIFICATE", "AUTHORITY"))  # fmt: skip


def _controller(found: Found, one: Controller, rows: tuple[Step, ...]) -> Iterator[Finding]:
    if one.connection_mode != "out-of-band":
        yield Finding(f"{one.target}: connection mode is {one.connection_mode or 'in-band'}, not out-of-band", rows)
    times = (("max_backoff", one.max_backoff, BACKOFF), ("inactivity_probe", one.inactivity_probe, PROBE))
    wrong = [
        f"{key} is {value if value is not None else 'not set'}, not {right}"
        for key, value, right in times
        if value is None or not 0 < value <= right
    ]  # fmt: skip
    # What is said as the row is made, or is there as ovs-vswitchd starts, it ignores until it changes (3.1.0)
    again = (*_vsctl("set-controller", found.name, *(one.target for one in found.controllers)), *rows)
    if wrong:
        yield Finding(f"{one.target}: {' and '.join(wrong)} ms: it is missed late and found late", again)
    elif one.set_at is None:
        yield Finding(f"{one.target}: max_backoff may not be in force: said as the row was made", again)
    elif found.started is not None and one.set_at + 1 < found.started:
        yield Finding(f"{one.target}: max_backoff is not in force: ovs-vswitchd was started since", again)
    if found.started is not None and not one.connected:
        yield Finding(f"{one.target}: not connected")


def _plain(address: str) -> str:
    """An address as the host writes it, whatever somebody has written into the bridge's row."""
    try:
        return str(ipaddress.ip_interface(address).ip)
    except ValueError:
        return address


def _links(found: Found, wanted: Wanted) -> Iterator[Finding]:
    assert found.bridge
    told = found.bridge["external_ids"]
    addresses = wanted.addresses or tuple(filter(None, told.get("vmm-underlay", "").split(",")))
    said = told.get("vmm-mtu", "")
    mtu = wanted.mtu or (int(said) if said.isdecimal() else 1450 + overhead(any(":" in one for one in addresses)))
    for address in addresses:
        link = found.addresses.get(_plain(address))
        if link is None:
            yield Finding(f"no link of this host has the underlay address {address}")
            continue
        for name in [link, *found.uplinks]:
            have = found.links[name].mtu if name in found.links else None
            if have is not None and have < mtu:
                yield Finding(f"{name} has an MTU of {have}, and tunnelled packets have up to {mtu} bytes",
                              (Step("", ("ip", "link", "set", "dev", name, "mtu", str(mtu))),))  # fmt: skip
    for name, port in found.ports.items():
        link_ = found.links.get(name)
        if port.type == "" and link_ and link_.tap and link_.queue < TAP_QUEUE:
            yield Finding(
                f"{name} holds {link_.queue} frames for a paused guest: more are lost", (tap_step(name),)
            )
    if found.bridge["datapath_type"] == "netdev":
        for name in found.uplinks:
            if name in found.links and found.links[name].unchecked:
                yield Finding(f"{name} leaves checksums undone, and the userspace datapath sends them on",
                              (Step("", ("ethtool", "-K", name, "tx", "off")),))  # fmt: skip
        if addresses and all(found.addresses.get(_plain(one)) not in found.others for one in addresses):
            yield Finding(
                "the underlay address is on no bridge: the userspace datapath tunnels only over one (setup --uplink)"
            )
