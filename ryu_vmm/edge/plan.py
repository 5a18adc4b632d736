"""An edge as values, and the commands that make it."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..addresses import format_dpid, parse_dpid
from ..errors import InvalidInput

__all__ = [
    "BACKOFF", "CONTROLLER", "NOW", "PROBE", "TAP_QUEUE", "TUNNEL_OPTIONS", "Edge", "Step", "Tls", "Uplink",
    "controller_row", "default_dpid", "overhead", "target",
]  # fmt: skip

PROBE = 5000
"""Milliseconds of silence after which Open vSwitch asks whether the NVA is there; as long again, and it reconnects."""

BACKOFF = 1000
"""Milliseconds at most between two attempts to reach the NVA. Open vSwitch's own default is 8,000."""

TAP_QUEUE = 10_000
"""Frames that wait in a tap for a paused guest: 5 s of 2,000 frames/s. The kernel's default is 1,000."""

NOW = "$(date +%s)"
"""Stands for the seconds since the epoch at which a step is done."""

#: Of every tunnel port. The checksum covers the VNI: a packet whose VNI was corrupted on its way is dropped.
TUNNEL_OPTIONS = {"remote_ip": "flow", "local_ip": "flow", "key": "flow", "csum": "true"}

#: What has the taps of libvirt, QEMU and OpenStack made with a longer queue.
_UDEV_RULE = f'SUBSYSTEM=="net", ACTION=="add", KERNEL=="vnet*|tap*", ATTR{{tx_queue_len}}="{TAP_QUEUE}"'
_UDEV_FILE = "/etc/udev/rules.d/60-vmm-taps.rules"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_NVE = re.compile(r"[A-Za-z0-9._-]{1,63}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


def default_dpid(name: str) -> str:
    """The datapath id of an edge that was given none: the first 8 bytes of its name's SHA-256, 16 digits.

    Open vSwitch's own would follow from a port's MAC, and change with it.
    """
    return format_dpid(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") or 1)


def overhead(ipv6: bool) -> int:
    """Bytes around a guest's IP packet on the underlay: its Ethernet header, VXLAN, UDP and IP (RFC 7348)."""
    return 70 if ipv6 else 50


def target(text: str) -> str:
    """A controller as Open vSwitch writes it: ``tcp:ADDRESS:PORT`` or ``ssl:ADDRESS:PORT``; 6653 where no port is said.

    An IPv6 address is in brackets. Raises InvalidInput.

    >>> target("tcp:192.0.2.10")
    'tcp:192.0.2.10:6653'
    """
    kind, _, rest = text.partition(":")
    host, port = rest, "6653"
    found = re.fullmatch(r"(\[[^]]*\]|[^:]*)(?::(\d+))?", rest)
    if found:
        host, port = found[1], found[2] or port
    bare = host.removeprefix("[").removesuffix("]")
    if kind not in ("tcp", "ssl") or not found or not 0 < int(port) < 65536 or not _is_host(host, bare):
        raise InvalidInput(f"{text!r} is no controller, as tcp:ADDRESS:PORT and ssl:ADDRESS:PORT are", "controller")
    return f"{kind}:{host}:{port}"


def _is_host(host: str, bare: str) -> bool:
    if host.startswith("["):
        try:
            return ipaddress.ip_address(bare.partition("%")[0]).version == 6
        except ValueError:
            return False
    return _HOST.fullmatch(host) is not None


def _interface(text: str, version: int, name: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        found = None
    if found is None or found.version != version or found.ip.is_unspecified or found.ip.is_multicast:
        raise InvalidInput(f"{text!r} is not an IPv{version} address, with or without /PREFIX-LENGTH", name)
    return found


@dataclass(frozen=True)
class Tls:
    """PEM files of an edge: its key, its certificate, and the authority of the NVA's."""

    key: str
    certificate: str
    authority: str


@dataclass(frozen=True)
class Uplink:
    """The host's link to the underlay, where Open vSwitch has to hold it: the userspace datapath tunnels only there.

    ``bridge`` takes ``interface`` in and the underlay addresses over; ``routers`` are the next hops of its default
    routes, one of each family.
    """

    interface: str
    bridge: str = "br-ext"
    routers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One command, and why it is there. ``rows``: it is done for each controller, whose name or id stands last in
    ``words[:2]``."""

    why: str
    words: tuple[str, ...]
    rows: bool = False


@dataclass(frozen=True)
class Edge:
    """An edge: a bridge, its tunnel ports, and who controls it. Raises InvalidInput where it makes no sense.

    ``ipv4`` and ``ipv6`` are underlay addresses, with a prefix length where ``uplink`` is to have them. ``mtu`` is of
    the underlay, in bytes; 0: what guests with an MTU of 1,450 need, 1,500 or over IPv6 1,520. ``datapath_type`` is
    "system" (the kernel's) or "netdev" (userspace); None: what the bridge has, a new one the kernel's. ``ofports``
    numbers the tunnel ports; those that it does not name, Open vSwitch numbers.
    """

    name: str
    controllers: tuple[str, ...]
    dpid: str = ""
    ipv4: str | None = None
    ipv6: str | None = None
    bridge: str = "br-int"
    datapath_type: str | None = None
    tunnel_port: str = "vxlan"
    routed_port: str | None = None
    locator: str | None = None
    ila_port: str = "ila"
    mtu: int = 0
    uplink: Uplink | None = None
    tls: Tls | None = None
    taps: tuple[str, ...] = ()
    tap_rule: bool = False
    ofports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "controllers", tuple(dict.fromkeys(target(one) for one in self.controllers)))
        if not _NVE.fullmatch(self.name):
            raise InvalidInput(f"{self.name!r} is no name of 1 to 63 letters, digits, dots and hyphens", "name")
        put(self, "dpid", format_dpid(parse_dpid(self.dpid, "dpid")) if self.dpid else default_dpid(self.name))
        if self.ipv4 is None and self.ipv6 is None:
            raise InvalidInput("an edge needs an underlay address, IPv4 or IPv6", "ipv4")
        for text, version, name in ((self.ipv4, 4, "ipv4"), (self.ipv6, 6, "ipv6")):
            if text is not None:
                found = _interface(text, version, name)
                if self.uplink and "/" not in text:
                    raise InvalidInput(f"{text} needs a prefix length: the uplink's bridge gets it", name)
                put(self, name, str(found if "/" in text else found.ip))  # as the host itself writes it
        if self.datapath_type not in (None, "system", "netdev"):
            raise InvalidInput(f"datapath type {self.datapath_type!r} is neither system nor netdev", "datapath_type")
        least = 1450 + overhead(self.ipv6 is not None)
        put(self, "mtu", self.mtu or least)
        if not 1280 <= self.mtu <= 65535:
            raise InvalidInput(f"an MTU of {self.mtu} is not within 1280 and 65535 bytes", "mtu")
        secure = any(one.startswith("ssl:") for one in self.controllers)
        if secure and self.tls is None:
            raise InvalidInput("a controller by ssl: needs a key, a certificate and an authority", "tls")
        if self.locator and not (self.ipv6 and self.uplink):
            raise InvalidInput("a locator needs an IPv6 underlay address and an uplink", "locator")
        names = [self.bridge, self.tunnel_port, self.routed_port, self.locator and self.ila_port, *self.taps]
        names += [self.uplink.interface, self.uplink.bridge] if self.uplink else []
        for one in filter(None, names):
            if not _NAME.fullmatch(one):
                raise InvalidInput(f"{one!r} is no name of a bridge or link (at most 15 characters)", "name")
            if names.count(one) > 1:
                raise InvalidInput(f"{one!r} is the name of two different things", "name")

    @property
    def addresses(self) -> list[str]:
        """The underlay addresses, without prefix lengths."""
        return [text.partition("/")[0] for text in (self.ipv4, self.ipv6) if text]

    @property
    def secret(self) -> bool:
        """Whether certificates are needed: a controller is reached by TLS."""
        return any(one.startswith("ssl:") for one in self.controllers)

    # --- commands, in order -------------------------------------------------------------------------------
    def steps(self) -> list[Step]:
        """All commands that make the edge, in order. Doing them again changes nothing and repairs what differs."""
        return [
            *self._uplink(),
            self.bridge_step(),
            self.tunnel_step(),
            *([self.routed_step()] if self.routed_port else []),
            *self.locator_steps(),
            *self._taps(),
            *self.controller_steps(),
        ]  # fmt: skip

    def bridge_step(self) -> Step:
        """The bridge, which forwards nothing that the NVA has not told it to."""
        why = "the bridge: no forwarding of its own (secure), no hidden flows (in-band control), OpenFlow 1.3"
        return Step(why, (
            "ovs-vsctl", "--may-exist", "add-br", self.bridge,
            "--", "set", "bridge", self.bridge, *self._datapath(), "fail_mode=secure",
            "protocols=OpenFlow13", f"other-config:datapath-id={self.dpid}", "other-config:disable-in-band=true",
            f"external-ids:vmm-nve={self.name}", f"external-ids:vmm-underlay={','.join(self.addresses)}",
            f"external-ids:vmm-mtu={self.mtu}",
            # Else OVS makes its MTU the least of its ports', anew when the last VM leaves: a link event, in which the
            # userspace datapath forgets its routes for some milliseconds and drops what is tunnelled
            "--", "set", "interface", self.bridge, f"mtu_request={self.mtu}",
        ))  # fmt: skip

    def tunnel_step(self) -> Step:
        """The VXLAN port, one for all other edges."""
        why = "the tunnel port, one for all other edges; its checksum covers the network's number"
        return Step(why, self._tunnel(self.tunnel_port, "vxlan"))

    def routed_step(self) -> Step:
        """The port for tunnels without Ethernet headers (layer 3 networks)."""
        assert self.routed_port
        why = "the port for tunnels without Ethernet headers, of layer 3 networks"
        return Step(why, self._tunnel(self.routed_port, "gre", packet_type="legacy_l3"))

    def _tunnel(self, port: str, kind: str, **more: str) -> tuple[str, ...]:
        return (
            "ovs-vsctl", "--may-exist", "add-port", self.bridge, port,
            "--", "clear", "interface", port, "options",
            "--", "set", "interface", port, f"type={kind}", *self._numbered(port),
            *(f"options:{key}={value}" for key, value in {**TUNNEL_OPTIONS, **more}.items()),
        )  # fmt: skip

    def _datapath(self) -> list[str]:
        return [f"datapath_type={self.datapath_type}"] if self.datapath_type else []

    def _numbered(self, port: str) -> list[str]:
        return [f"ofport_request={self.ofports[port]}"] if port in self.ofports else []

    def _uplink(self) -> Iterator[Step]:
        if not self.uplink:
            return
        link, bridge = self.uplink.interface, self.uplink.bridge
        yield Step("the underlay's link and its MTU", ("ip", "link", "set", "dev", link, "mtu", str(self.mtu), "up"))
        if self.datapath_type == "netdev":
            yield Step("the userspace datapath would send half-made checksums on", ("ethtool", "-K", link, "tx", "off"))
        yield Step("the underlay's bridge, which holds that link", (
            "ovs-vsctl", "--may-exist", "add-br", bridge,
            "--", "set", "bridge", bridge, *self._datapath(), "fail_mode=standalone",
            "--", "set", "interface", bridge, f"mtu_request={self.mtu}",
            "--", "--may-exist", "add-port", bridge, link,
        ))  # fmt: skip
        yield from self.address_steps()

    def address_steps(self) -> Iterator[Step]:
        """The underlay addresses on the uplink's bridge, and its routes. They go with every restart of the host."""
        assert self.uplink
        link, bridge = self.uplink.interface, self.uplink.bridge
        yield Step("it is up", ("ip", "link", "set", "dev", bridge, "mtu", str(self.mtu), "up"))
        for address in filter(None, (self.ipv4, self.ipv6)):
            family = "-6" if ":" in address else "-4"
            flush = ("ip", family, "addr", "flush", "dev", link, "scope", "global")
            yield Step("the underlay address moves from the link", flush)
            if family == "-6":
                yield Step("IPv6 may be off there", ("sysctl", "-qw", f"net.ipv6.conf.{bridge}.disable_ipv6=0"))
            nodad = ("nodad",) if family == "-6" else ()
            yield Step("to the bridge", ("ip", family, "addr", "replace", address, "dev", bridge, *nodad))
        for router in self.uplink.routers:
            family = "-6" if ":" in router else "-4"
            yield Step("the way to other subnets",
                       ("ip", family, "route", "replace", "default", "via", router, "dev", bridge))  # fmt: skip

    def locator_steps(self) -> Iterator[Step]:
        """ILA: what is for the locator goes from the underlay's bridge to the edge. The flow goes with ovs-vswitchd."""
        if not self.locator:
            return
        assert self.uplink
        peer = f"{self.ila_port}-ext"
        yield Step("ILA: a pair of ports between the two bridges", (
            "ovs-vsctl", "--may-exist", "add-port", self.bridge, self.ila_port,
            "--", "set", "interface", self.ila_port, "type=patch", f"options:peer={peer}",
            *self._numbered(self.ila_port),
            "--", "--may-exist", "add-port", self.uplink.bridge, peer,
            "--", "set", "interface", peer, "type=patch", f"options:peer={self.ila_port}",
        ))  # fmt: skip
        yield self.locator_flow()

    def locator_flow(self) -> Step:
        """The flow that leads the locator to the edge; it is gone whenever ovs-vswitchd was."""
        assert self.uplink
        return Step("and what is for the locator goes there", (
            "ovs-ofctl", "add-flow", self.uplink.bridge,
            f"priority=100,ipv6,ipv6_dst={self.locator},actions=output:{self.ila_port}-ext",
        ))  # fmt: skip

    def _taps(self) -> Iterator[Step]:
        for tap in self.taps:
            yield tap_step(tap)
        if self.tap_rule:
            yield Step(
                "taps that come later",
                ("sh", "-c", f"printf '%s\\n' {shlex.quote(_UDEV_RULE)} > {_UDEV_FILE} && udevadm control --reload"),
            )

    def controller_steps(self) -> Iterator[Step]:
        """Who controls the bridge, and how often it is asked and looked for: last, when all else is there."""
        if not self.controllers:
            return
        if self.secret:
            assert self.tls
            yield Step("its key, its certificate, and whose certificates the NVA may have",
                       ("ovs-vsctl", "set-ssl", self.tls.key, self.tls.certificate, self.tls.authority))  # fmt: skip
        yield Step("the NVA", ("ovs-vsctl", "set-controller", self.bridge, *self.controllers))
        yield Step(
            "how it is reached; by itself, since Open vSwitch 3.1.0 ignores what is said as a controller is made",
            controller_row(self.bridge), rows=True,
        )  # fmt: skip

    @property
    def registration(self) -> tuple[str, ...]:
        """The command that registers the edge with the NVA."""
        words = ["vmm", "nve", "add", self.name, "--dpid", self.dpid]
        for text, option in ((self.ipv4, "--ipv4"), (self.ipv6, "--ipv6")):
            words += [option, text.partition("/")[0]] if text else []
        words += ["--tunnel-port", self.tunnel_port] if self.tunnel_port != "vxlan" else []
        words += ["--routed-port", self.routed_port] if self.routed_port else []
        words += ["--locator", self.locator, "--ila-port", self.ila_port] if self.locator else []
        return tuple(words)


#: What a controller's row says. The time tells whether ovs-vswitchd has been started since, and has forgotten it.
CONTROLLER = {"connection_mode": "out-of-band", "max_backoff": str(BACKOFF), "inactivity_probe": str(PROBE)}


def controller_row(row: str) -> tuple[str, ...]:
    """The command that sets a controller's row, by the bridge's name where it has one, else by id."""
    return (
        "ovs-vsctl", "set", "controller", row, *(f"{key}={value}" for key, value in CONTROLLER.items()),
        f"external-ids:vmm-set-at={NOW}",
    )  # fmt: skip


def tap_step(tap: str) -> Step:
    """The command that lengthens a tap's queue."""
    return Step("room for what arrives while a guest is paused", (
        "ip", "link", "set", "dev", tap, "txqueuelen", str(TAP_QUEUE),
    ))  # fmt: skip
