"""Open vSwitch as the judge of the emulated underlay: two real NVEs and two emulated ones hear the same.

One sends, by a packet-out that runs through its tables; what its tables and those of the other hand to the controller
is compared whole: the packet, and where it says that it came from.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv6Network, ip_address

import pytest
from test_emulation_ovs import Bridge

from ryu_vmm.emulation import packets
from ryu_vmm.emulation.fabric import Fabric
from ryu_vmm.emulation.session import Session
from ryu_vmm.emulation.switch import Switch
from ryu_vmm.flows import (
    IN_PORT,
    TABLE,
    Action,
    CheckLarger,
    DecTtl,
    Flow,
    Match,
    Meter,
    Output,
    SetField,
    ToNva,
    match,
    set_field,
)
from ryu_vmm.wire import base as of
from ryu_vmm.wire import frames, meters
from ryu_vmm.wire import openflow as nva
from topologies import OverlayNet
from topologies.nve import ILA_OFPORT as ILA
from topologies.nve import NVE
from topologies.nve import ROUTED_OFPORT as ROUTED
from topologies.nve import TUNNEL_OFPORT as TUNNEL

pytestmark = pytest.mark.real

GUEST = 10  # a port number; no such port is needed where a packet-out says that it came from there
SIR = ip_address("2001:db8:5::5").packed
_DEADLINE = 10.0
WARM = b"\xee" * 12 + b"\x88\xb6" + bytes(46)
HEAR = (ToNva(0xFFFF),)


class Pair:
    """Two NVEs, real and emulated, programmed alike."""

    def __init__(self, net: OverlayNet) -> None:
        self.nves = [net.nve("nve1"), net.nve("nve2")]
        self.key = 0xAB0000
        self.real = [Bridge(f"{nve.folder}/br-int.mgmt") for nve in self.nves]
        self.addresses = [_addresses(nve) for nve in self.nves]
        self.macs = [_outer_mac(nve) for nve in self.nves]
        self.locators = [IPv6Network(nve.locator).network_address.packed[:8] for nve in self.nves]
        self.switches = [
            Switch(n, ("vxlan", "gre", "ila"), addresses=own, locator=locator)
            for n, (own, locator) in enumerate(zip(self.addresses, self.locators, strict=True), 1)
        ]
        self.fabric = Fabric(self.switches)
        for switch, mac, own, locator in zip(self.switches, self.macs, self.addresses, self.locators, strict=True):
            self.fabric.underlay.join(switch.dpid, mac, own[1], locator)
        self.emulated = [switch.connect() for switch in self.switches]
        for session in self.emulated:
            session.receive(nva.encode_hello(1) + of.message(of.FEATURES_REQUEST, 2), 0.0)

    def program(self, *flows: list[Flow]) -> None:
        """The flows of one and the other, in place of all that were there."""
        for real, switch, own in zip(self.real, self.switches, flows, strict=True):
            warm = Flow(0, 65535, match(eth_type=0x88B6), HEAR, cookie=0xEE)
            assert real.install([warm, *own]) == []
            switch.tables.delete()
            for flow in own:
                switch.tables.add(flow)
        self._warm_up()

    def _warm_up(self) -> None:
        """Until packets cross: Open vSwitch drops those to neighbors that it has not resolved."""
        for here in (0, 1):
            for port, family in ((TUNNEL, 4), (ROUTED, 4), (TUNNEL, 6), (ROUTED, 6)):
                out = nva.encode_packet_out(of.PORT_CONTROLLER, self.tunnel(here, port, family), WARM)
                end = time.monotonic() + _DEADLINE
                while not self._crosses(here, out):
                    assert time.monotonic() < end, "the underlay does not carry packets"

    def _crosses(self, here: int, packet_out: bytes) -> bool:
        self.real[here].sock.sendall(packet_out)
        return any(found.cookie == 0xEE for found in self._packet_ins(1 - here, 0.3, 0xEE))

    def _packet_ins(self, who: int, seconds: float, last: int = 0) -> Iterator[nva.PacketIn]:
        """What a bridge hands over, until that takes too long or the cookie ``last`` has come."""
        bridge, end = self.real[who], time.monotonic() + seconds
        while True:
            while len(bridge.rest) < 8 or len(bridge.rest) < int.from_bytes(bridge.rest[2:4], "big"):
                if not select.select([bridge.sock], [], [], max(0.0, end - time.monotonic()))[0]:
                    return
                bridge.rest += bridge.sock.recv(65536)
            size = int.from_bytes(bridge.rest[2:4], "big")
            message, bridge.rest = bridge.rest[:size], bridge.rest[size:]
            assert message[1] != of.ERROR, nva.decode_error(message)
            if message[1] == of.PACKET_IN:
                found = nva.decode_packet_in(message)
                yield found
                if found.cookie == last:
                    return

    def tunnel(self, here: int, port: int, family: int = 4, out: int | None = None) -> tuple[Action, ...]:
        """Actions that send a packet to the other one.

        Each test has a key of its own: after new flows, Open vSwitch's datapath goes on with what it has learned of the
        old ones for a while.
        """
        src, dst = (self.addresses[n][family == 6] for n in (here, 1 - here))
        ends = SetField(f"tun_ipv{family}_src", src), SetField(f"tun_ipv{family}_dst", dst)
        return (set_field("tun_id", self.key), *ends, Output(port if out is None else out))

    def both_say(self, frame: bytes, where: int = 1, sender: int = 0) -> list[nva.PacketIn]:
        """What one of them hears when the first sends a frame through its tables; real and emulated say the same."""
        self._drain(self.emulated[where])
        packet_out = nva.encode_packet_out(GUEST, (Output(TABLE),), frame)
        self.emulated[sender].receive(packet_out, 0.0)
        expected = [found for found in self._drain(self.emulated[where]) if found.cookie]
        assert expected
        self.real[sender].sock.sendall(packet_out)
        heard: list[nva.PacketIn] = []
        for found in self._packet_ins(where, _DEADLINE):
            heard += [found] if found.cookie not in (0, 0xEE) else []
            if len(heard) == len(expected):
                break
        assert heard == expected
        return heard

    @staticmethod
    def _drain(session: Session) -> list[nva.PacketIn]:
        data, found = b"".join(session.out), []
        session.out.clear()
        while data:
            size = int.from_bytes(data[2:4], "big")
            if data[1] == of.PACKET_IN:
                found.append(nva.decode_packet_in(data[:size]))
            data = data[size:]
        return found

    def close(self) -> None:
        for bridge in self.real:
            bridge.sock.close()


def _outer_mac(nve: NVE) -> bytes:
    return bytes.fromhex(nve.vsctl("get", "Interface", "br-ext", "mac_in_use").strip().strip('"').replace(":", ""))


def _addresses(nve: NVE) -> tuple[bytes, bytes]:
    assert nve.ipv4
    assert nve.ipv6
    return ip_address(nve.ipv4.partition("/")[0]).packed, ip_address(nve.ipv6.partition("/")[0]).packed


@pytest.fixture(scope="module")
def built() -> Iterator[Pair]:
    with OverlayNet(nves=2, vms=0, underlay="both", routed="gre", ila=True, controller=None) as net:
        made = Pair(net)
        yield made
        made.close()


@pytest.fixture
def pair(built: Pair) -> Pair:
    built.key += 1
    return built


def flow(on: Match, *actions: Action, cookie: int = 0, table: int = 0, goto: int | None = None) -> Flow:
    return Flow(table, 9, on, actions, goto, cookie=cookie)


def udp(family: int = 4, ttl: int = 64, size: int = 40) -> bytes:
    ends = {4: ("10.1.1.1", "10.1.2.2"), 6: ("2001:db8:5::1", "2001:db8:5::5")}[family]
    fields = {"eth_dst": 0x020000000002, "eth_src": 0x020000000001, "udp_src": 7, "udp_dst": 9, "ip_ttl": ttl}
    for name, end in zip(("src", "dst"), ends, strict=True):
        fields[f"ipv{family}_{name}"] = int(ip_address(end))
    return packets.build(fields, bytes(range(size)))


CROSSING = {
    "ipv4": udp(4),
    "ipv6": udp(6),
    "arp": frames.build_garp(bytes.fromhex("020000000001"), bytes([10, 0, 0, 1])),
    "probe": frames.build_probe(b"nonce", 1000),
}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("port", [TUNNEL, ROUTED])
def test_what_comes_out_of_a_tunnel(pair: Pair, port: int, family: int) -> None:
    pair.program(
        [flow(match(in_port=GUEST), *pair.tunnel(0, port, family))],
        [flow(match(in_port=port, tun_id=pair.key), *HEAR, cookie=5)],
    )
    for frame in CROSSING.values():
        pair.both_say(frame)


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in (TUNNEL, ROUTED) for b in (TUNNEL, ROUTED)])
def test_there_and_back(pair: Pair, first: int, second: int) -> None:
    """From tunnel to tunnel, as redirects go, with a hop counted in between."""
    back = pair.tunnel(1, second, 6, out=IN_PORT if first == second else None)
    pair.program(
        [
            flow(match(in_port=GUEST), *pair.tunnel(0, first, 6)),
            flow(match(in_port=second, tun_id=pair.key), *HEAR, cookie=6),
        ],
        [
            flow(match(in_port=first, tun_id=pair.key, eth_type=kind), *HEAR, DecTtl(), *back, cookie=5)
            for kind in (0x0800, 0x86DD)
        ],
    )
    for family in (4, 6):
        pair.both_say(udp(family), where=0)


def test_a_packet_is_measured_alike_however_it_came(pair: Pair) -> None:
    limit = len(udp(4, size=40))
    hears = [
        flow(match(reg0=(1, 1)), *HEAR, cookie=8, table=1),
        flow(match(reg0=(0, 1)), *HEAR, cookie=7, table=1),
    ]
    for port in (TUNNEL, ROUTED):
        pair.program(
            [flow(match(in_port=GUEST), *pair.tunnel(0, port))],
            [flow(match(in_port=port, tun_id=pair.key), CheckLarger(limit), goto=1), *hears],
        )
        for size in (39, 40, 41):
            (heard,) = pair.both_say(udp(4, size=size))
            assert heard.cookie == (8 if size > 40 else 7)


def test_ila_crosses_as_it_is(pair: Pair) -> None:
    located = pair.locators[1] + SIR[8:]
    to = (SetField("ipv6_dst", located), SetField("eth_dst", pair.macs[1]), Output(ILA))
    pair.program(
        [flow(match(in_port=GUEST, eth_type=0x86DD), DecTtl(), *to)],
        [
            flow(
                match(in_port=ILA, eth_type=0x86DD, ipv6_dst=located),
                *HEAR,
                SetField("ipv6_dst", SIR),
                cookie=5,
                goto=1,
            ),
            flow(match(eth_type=0x86DD, ipv6_dst=SIR), *HEAR, cookie=6, table=1),
        ],
    )
    assert [found.cookie for found in pair.both_say(udp(6))] == [5, 6]
    assert pair.both_say(udp(6))[1].frame[14:] == packets.rewrite(udp(6), "ip_ttl", 63)[14:]


def test_a_host_answers_for_its_address(pair: Pair) -> None:
    mac, link = b"\x02\x69\0\0\0\1", ip_address("fe80::69").packed
    answers = flow(match(in_port=ILA, eth_type=0x86DD, ip_proto=58, icmpv6_type=136, icmpv6_code=0), *HEAR, cookie=5)
    pair.program([flow(match(in_port=GUEST), Output(ILA)), answers], [])
    for target in (pair.addresses[1][1], pair.addresses[0][1]):
        (heard,) = pair.both_say(frames.build_ns(mac, link, target), where=0)
        assert frames.parse_nd(heard.frame).target == target


def test_counters_count_what_has_crossed_without_its_header(pair: Pair) -> None:
    """Flows' and meters', on both sides of both kinds of tunnels."""
    frame = udp(4, size=100)
    for port in (TUNNEL, ROUTED):
        hear = flow(match(in_port=port), Meter(1), *HEAR, cookie=5)
        send = flow(match(in_port=GUEST), Meter(1), *pair.tunnel(0, port), cookie=4)
        for real, switch in zip(pair.real, pair.switches, strict=True):
            real.sock.sendall(meters.encode_meter_delete(1, 70) + meters.encode_meter_add(1, 71))
            switch.tables.meters[1] = (0, 0)
        pair.program([send], [hear])
        for _ in range(5):
            pair.both_say(frame)
        for who, installed in ((0, send), (1, hear)):
            (entry,) = pair.switches[who].tables.select(installed.match)
            counts = (entry.packets, entry.bytes), pair.switches[who].tables.meters[1]
            _until(pair.real[who], installed, counts)


Counts = tuple[tuple[int, int], tuple[int, int]]


def _until(bridge: Bridge, wanted: Flow, expected: Counts) -> None:
    """Statistics are up to half a second behind."""
    end = time.monotonic() + _DEADLINE
    while (found := (_flow_counts(bridge, wanted), _meter_counts(bridge))) != expected:
        assert time.monotonic() < end, (found, expected)
        time.sleep(0.1)


def _reply(bridge: Bridge, request: bytes) -> bytes:
    bridge.sock.sendall(request)
    return next(message for message in bridge.messages() if message[1] == of.MULTIPART_REPLY)


def _flow_counts(bridge: Bridge, wanted: Flow) -> tuple[int, int]:
    found, _ = nva.decode_flow_stats(_reply(bridge, nva.encode_flow_stats_request(90)))
    (stats,) = [stats for stats in found if stats.flow.match == wanted.match]
    return stats.packets, stats.bytes


def _meter_counts(bridge: Bridge) -> tuple[int, int]:
    found, _ = meters.decode_meter_stats(_reply(bridge, meters.encode_meter_stats_request(91)))
    return found[1]


# --- what is rewritten in packets of unusual shapes -------------------------------------------------------------------
def _v6(following: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), following, 64) + SIR[:15] + b"\1" + SIR
    return bytes.fromhex("020000000002020000000001") + b"\x86\xdd" + head + body


def _v4(where: int, protocol: int, body: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, where, 64, protocol, 0) + bytes(
        [10, 0, 0, 1, 10, 0, 0, 2]
    )
    head = head[:10] + struct.pack("!H", packets.checksum(head)) + head[12:]
    return bytes.fromhex("020000000002020000000001") + b"\x08\0" + head + body


_UDP = struct.pack("!HHHH", 7, 9, 48, 0x1234) + bytes(range(40))
_NO_SUM = _UDP[:6] + b"\0\0" + _UDP[8:]
_TCP = struct.pack("!HHIIBBHHH", 7, 9, 1, 2, 0x50, 0x10, 100, 0x4321, 0) + bytes(range(24))
_ECHO = struct.pack("!BBHI", 128, 0, 0x5678, 1) + bytes(40)
SHAPES = {
    "UDP": _v6(17, _UDP),
    "UDP without a checksum": _v6(17, _NO_SUM),
    "TCP": _v6(6, _TCP),
    "TCP cut short": _v6(6, _TCP[:19]),
    "an echo request": _v6(58, _ECHO),
    "ICMPv6 cut short": _v6(58, _ECHO[:6]),
    "options first": _v6(0, bytes([17, 0, 1, 4, 0, 0, 0, 0]) + _UDP),
    "routed by others": _v6(43, bytes([17, 2, 0, 1, 0, 0, 0, 0]) + SIR + _UDP),
    "at the end of its route": _v6(43, bytes([17, 2, 0, 0, 0, 0, 0, 0]) + SIR + _UDP),
    "a first fragment": _v6(44, bytes([17, 0]) + struct.pack("!HI", 1, 7) + _UDP),
    "a later fragment": _v6(44, bytes([17, 0]) + struct.pack("!HI", 48, 7) + _UDP),
    "an ICMP error": _v6(58, struct.pack("!BBHI", 2, 0, 0x1111, 1400) + _v6(17, _UDP)[14:]),
    "IPv4 with UDP": _v4(0x4000, 17, _UDP),
    "IPv4 with UDP without a checksum": _v4(0x4000, 17, _NO_SUM),
    "IPv4 with TCP": _v4(0x4000, 6, _TCP),
    "IPv4 with ICMP": _v4(0x4000, 1, struct.pack("!BBHI", 8, 0, 0x5678, 1) + bytes(40)),
    "an IPv4 first fragment": _v4(0x2000, 17, _UDP),
    "an IPv4 later fragment": _v4(0x2005, 17, _UDP),
    "an IPv4 last fragment of TCP": _v4(0x0005, 6, _TCP),
}


@pytest.mark.parametrize("name", SHAPES)
def test_addresses_and_ttls_are_rewritten_alike(pair: Pair, name: str) -> None:
    """Checksums that are there are kept as right or wrong as they were; those that are not, are not made."""
    v4 = SHAPES[name][12:14] == b"\x08\0"
    on = match(eth_type=packets.IPV4 if v4 else packets.IPV6)
    dst = SetField("ipv4_dst", bytes([10, 9, 8, 7])) if v4 else SetField("ipv6_dst", pair.locators[1] + SIR[8:])
    later = v4 and packets.parse(SHAPES[name]).get("ip_frag", 0) & packets.LATER  # see packets.rewrite
    pair.program([flow(on, DecTtl(), *(() if later else (dst,)), *HEAR, cookie=5)], [])
    pair.both_say(SHAPES[name], where=0)
