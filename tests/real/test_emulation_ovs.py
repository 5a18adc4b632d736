"""Open vSwitch as the judge of the oracle: random pipelines and packets, and both say the same about each.

A switch is asked by packet-outs that run through its tables; every action that would send a packet somewhere sends it
to the controller instead, with a cookie that says which flow did it, so that what comes back shows the path and the
packet as it was at each step.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ryu_vmm.emulation import packets
from ryu_vmm.emulation.rules import Refused
from ryu_vmm.emulation.tables import Tables, ToNva
from ryu_vmm.flows import TABLE, Action, CheckLarger, Copy, DecTtl, Flow, FlowChange, Match, Output, match, set_field
from ryu_vmm.flows import ToNva as ToNvaAction
from ryu_vmm.wire import base as of
from ryu_vmm.wire import openflow as nva

pytestmark = pytest.mark.real

PORTS = (10, 11)
MACS = [0x020000000001, 0x020000000002, 0x333300000001, 0xFFFFFFFFFFFF, 0x0180C2000001]
V4 = [0x0A000001, 0x0A000002, 0]
V6 = [0x20010DB8 << 96 | 1, 0xFE80 << 112 | 2, 0]


class Seen(NamedTuple):
    """One visit to the controller."""

    cookie: int
    table: int
    tun_id: int
    tun_src: bytes | None
    frame: bytes


class Bridge:
    """The OpenFlow side of a real bridge."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(path)
        self.rest = b""
        self.sock.sendall(nva.encode_hello(1) + nva.encode_set_config(2) + nva.encode_set_async(3))

    def messages(self) -> Iterator[bytes]:
        while True:
            while len(self.rest) < 8 or len(self.rest) < int.from_bytes(self.rest[2:4], "big"):
                data = self.sock.recv(65536)
                assert data, "the switch has closed the connection"
                self.rest += data
            size = int.from_bytes(self.rest[2:4], "big")
            message, self.rest = self.rest[:size], self.rest[size:]
            if message[1] == of.ECHO_REQUEST:
                self.sock.sendall(nva.encode_echo_reply(int.from_bytes(message[4:8], "big"), message[8:]))
            yield message

    def install(self, flows: list[Flow]) -> list[int]:
        """Replace all flows; the numbers of those that were refused."""
        xid = 1000
        delete = of.message(of.FLOW_MOD, 999, _delete_all())
        mods = [nva.encode_flow_mods([FlowChange("add", flow)], xid + n) for n, flow in enumerate(flows)]
        self.sock.sendall(delete + b"".join(mods) + nva.encode_barrier(5000))
        refused = []
        for message in self.messages():
            if message[1] == of.ERROR:
                failed = nva.decode_error(message).failed_xid
                assert failed is not None
                refused.append(failed - xid)
            if message[1] == of.BARRIER_REPLY:
                return refused
        raise AssertionError

    def ask(self, frame: bytes, in_port: int) -> list[Seen]:
        """What the tables send to the controller of such a packet."""
        end = b"\xee" * 14 + b"the end"
        self.sock.sendall(
            nva.encode_packet_out(in_port, (Output(TABLE),), frame)
            + nva.encode_packet_out(in_port, (ToNvaAction(0xFFFF),), end)
        )
        seen = []
        for message in self.messages():
            assert message[1] != of.ERROR, nva.decode_error(message)
            if message[1] == of.PACKET_IN:
                found = nva.decode_packet_in(message)
                if found.frame == end:
                    return seen
                seen.append(Seen(found.cookie, found.table, found.tun_id or 0, found.tun_src, found.frame))
        raise AssertionError


def _delete_all() -> bytes:
    fixed = struct.pack("!QQBBHHHIIIHxx", 0, 0, 0xFF, of.FC_DELETE, 0, 0, 0, of.NO_BUFFER, of.ANY, of.ANY, 0)
    return fixed + struct.pack("!HH4x", 1, 4)


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    from topologies import OverlayNet

    with OverlayNet(nves=1, vms=0, controller=None) as net:
        found = Bridge(f"{net.nve('nve1').folder}/br-int.mgmt")
        yield found
        found.sock.close()


def tun_src(result: ToNva) -> bytes | None:
    """The sender's underlay address that a packet-in tells."""
    for name, width in (("tun_ipv4_src", 4), ("tun_ipv6_src", 16)):
        if name in result.context:
            return result.context[name].to_bytes(width, "big")
    return None


# --- chance -----------------------------------------------------------------------------------------------------------
def some_frame(chance: random.Random) -> bytes:
    fields: dict[str, int] = {"eth_dst": chance.choice(MACS), "eth_src": chance.choice(MACS)}
    kind = chance.choice(["arp", "rarp", "udp4", "udp6", "tcp6", "ns", "na", "other"])
    payload = bytes(chance.randrange(256) for _ in range(chance.randrange(4)))
    if kind in ("arp", "rarp"):
        fields["eth_type"] = packets.ARP if kind == "arp" else packets.RARP
        fields |= {"arp_op": chance.randrange(1, 5), "arp_sha": chance.choice(MACS), "arp_tha": chance.choice(MACS)}
        fields |= {"arp_spa": chance.choice(V4), "arp_tpa": chance.choice(V4)}
    elif kind == "udp4":
        fields |= {"ipv4_src": chance.choice(V4), "ipv4_dst": chance.choice(V4), "udp_src": 1, "udp_dst": 2}
    elif kind == "udp6":
        fields |= {"ipv6_src": chance.choice(V6), "ipv6_dst": chance.choice(V6), "udp_src": 1, "udp_dst": 2}
    elif kind in ("ns", "na"):
        fields |= {"ipv6_src": chance.choice(V6), "ipv6_dst": chance.choice(V6), "icmpv6_code": 0}
        fields |= {"icmpv6_type": 135 if kind == "ns" else 136, "nd_target": chance.choice(V6)}
        payload = b""
        if chance.random() < 0.7:
            fields["nd_sll" if kind == "ns" else "nd_tll"] = chance.choice(MACS)
    elif kind == "tcp6":
        fields |= {"ipv6_src": chance.choice(V6), "ipv6_dst": chance.choice(V6), "ip_proto": packets.TCP}
        payload = bytes(12) + b"\x50" + bytes(7) + payload
    if kind not in ("arp", "rarp", "other") and chance.random() < 0.5:
        fields["ip_ttl"] = chance.choice([0, 1, 2, 255])
    if chance.random() < 0.2:
        fields["vlan_vid"] = 0x1000 | chance.choice([5, 6])
    frame = packets.build(fields, payload)
    if chance.random() < 0.25:  # cut short, or one byte wrong
        at = chance.randrange(14, len(frame)) if len(frame) > 14 else 14
        frame = frame[:at] if chance.random() < 0.5 else frame[:at] + bytes([chance.randrange(256)]) + frame[at + 1 :]
    return some_frame(chance) if freak(frame) else frame


def freak(frame: bytes) -> bool:
    """What Open vSwitch rewrites in ways of its own: ARP cut short or of operation 0, fragments but the first."""
    fields = packets.parse(frame)
    if fields["eth_type"] in (packets.ARP, packets.RARP):
        return not fields.get("arp_op")
    return fields["eth_type"] == packets.IPV4 and fields.get("ip_proto") == 17 and "udp_src" not in fields


def some_match(chance: random.Random) -> Match:
    fields: dict[str, int | tuple[int, int]] = {}
    if chance.random() < 0.3:
        fields["in_port"] = chance.choice(PORTS)
    for name in ("eth_dst", "eth_src"):
        if chance.random() < 0.25:
            value = chance.choice(MACS)
            fields[name] = chance.choice([value, (value & 1 << 40, 1 << 40), (value & 0xFF, 0xFF)])
    if chance.random() < 0.15:
        fields["vlan_vid"] = chance.choice([0, 0x1005, (0x1000, 0x1000)])
    if chance.random() < 0.3:
        fields["metadata"] = chance.choice([0, 1, (1, 1), (0, 2), (2, 2)])
    if chance.random() < 0.2:
        fields["reg0"] = chance.choice([0, 1, (0, 1), (1, 1), (6, 6)])
    if chance.random() < 0.2:
        fields["tun_id"] = chance.choice([0, 7, (0, 1)])
    for name, values in (("tun_ipv4_src", V4), ("tun_ipv6_src", V6), ("tun_ipv4_dst", V4), ("tun_ipv6_dst", V6)):
        if chance.random() < 0.05:
            fields[name] = chance.choice(values)
    kind = chance.choice(["", "", packets.ARP, packets.RARP, packets.IPV4, packets.IPV6, packets.IPV6])
    if kind:
        fields["eth_type"] = kind
    if kind in (packets.ARP, packets.RARP):
        choices = (("arp_op", [1, 2]), ("arp_spa", V4), ("arp_tpa", V4), ("arp_sha", MACS), ("arp_tha", MACS))
        for name, values in choices:
            if chance.random() < 0.3:
                fields[name] = chance.choice(values)
    elif kind and chance.random() < 0.2:
        fields["ip_ttl"] = chance.choice([0, 1, 2, 254])
    if kind == packets.IPV4:
        for name in ("ipv4_src", "ipv4_dst"):
            if chance.random() < 0.3:
                value = chance.choice(V4)
                fields[name] = chance.choice([value, (value & 0xFFFFFF00, 0xFFFFFF00)])
        if chance.random() < 0.4:
            fields |= {"ip_proto": 17, "udp_dst": chance.choice([1, 2])}
    elif kind == packets.IPV6:
        for name in ("ipv6_src", "ipv6_dst"):
            if chance.random() < 0.3:
                fields[name] = chance.choice(V6)
        if chance.random() < 0.6:
            nd = chance.choice([135, 136])
            fields |= {"ip_proto": 58, "icmpv6_type": nd, "icmpv6_code": 0}
            if chance.random() < 0.5:
                fields["nd_target"] = chance.choice(V6)
            if chance.random() < 0.5:
                fields["nd_sll" if nd == 135 else "nd_tll"] = chance.choice([*MACS, 0])
    if chance.random() < 0.03:
        fields.pop("eth_type", None)  # both must refuse it, if something needs it
    return match(**fields)


SETTABLE = {
    "eth_dst": MACS, "eth_src": MACS, "tun_id": [7, 8], "ipv4_src": V4, "ipv4_dst": V4, "ipv6_src": V6, "ipv6_dst": V6,
    "udp_src": [1, 9], "udp_dst": [2, 9], "arp_op": [1, 2], "arp_spa": V4, "arp_tpa": V4, "arp_sha": MACS,
    "tun_ipv4_src": V4, "tun_ipv6_src": V6, "tun_ipv4_dst": V4, "tun_ipv6_dst": V6,
    "arp_tha": MACS, "nd_target": V6, "nd_sll": MACS, "nd_tll": MACS, "metadata": [1, 2],
    "reg0": [6, 7], "ip_ttl": [1, 2, 255],
}  # fmt: skip
COPIED = [
    ("eth_src", "eth_dst"), ("reg0", "reg1"), ("arp_sha", "eth_src"), ("arp_sha", "arp_tha"), ("arp_spa", "arp_tpa"),
    ("arp_tpa", "reg1"), ("reg1", "arp_spa"), ("ipv6_src", "ipv6_dst"), ("nd_target", "ipv6_src"),
    ("eth_src", "nd_tll"),
]  # fmt: skip


def some_flows(chance: random.Random) -> list[Flow]:
    flows = []
    for table in (0, 3, 7):
        for priority in chance.sample(range(1, 100), 8):
            actions: list[Action] = []
            for _ in range(chance.randrange(3)):
                what = chance.random()
                if what < 0.1:
                    actions.append(DecTtl())
                elif what < 0.2:
                    actions.append(Copy(*chance.choice(COPIED)))
                elif what < 0.3:
                    actions.append(CheckLarger(chance.choice([13, 14, 54, 60, 62, 86, 0xFFFF])))
                elif what < 0.6:
                    name = chance.choice(list(SETTABLE))
                    actions.append(set_field(name, chance.choice(SETTABLE[name])))
                else:
                    actions.append(ToNvaAction(0xFFFF))
            actions.append(ToNvaAction(0xFFFF))  # so that every step shows
            goto = chance.choice([t for t in (3, 7) if t > table] or [None])
            flow = Flow(
                table,
                priority,
                some_match(chance),
                tuple(actions),
                goto if chance.random() < 0.8 else None,
                chance.choice([0, 0, 1, 2]) if table < 7 else 0,
                cookie=table << 8 | priority,
            )
            flows.append(flow)
        miss = (ToNvaAction(0xFFFF),)
        flows.append(Flow(table, 0, (), miss, next((t for t in (3, 7) if t > table), None), cookie=table << 8))
    return flows


@pytest.mark.parametrize("seed", range(40))
def test_both_say_the_same(bridge: Bridge, seed: int) -> None:
    chance = random.Random(seed)
    flows = some_flows(chance)
    tables = Tables()
    refused = []
    for n, flow in enumerate(flows):
        try:
            tables.add(flow)
        except Refused:
            refused.append(n)
    assert bridge.install(flows) == refused
    visits = 0
    for _ in range(60):
        frame, port = some_frame(chance), chance.choice(PORTS)
        expected = [
            Seen(r.cookie or 0, r.table, r.context.get("tun_id", 0), tun_src(r), r.frame)
            for r in tables.run(frame, port)
            if isinstance(r, ToNva)
        ]
        assert bridge.ask(frame, port) == expected, frame.hex()
        visits += len(expected)
    assert visits


# --- layer 4 behind extension headers and in fragments ---------------------------------------------------------------
def _ipv6(following: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), following, 255) + (V6[0].to_bytes(16, "big") * 2)
    return bytes.fromhex("020000000002020000000001") + b"\x86\xdd" + head + body


def _ipv4(fragment: int, protocol: int, body: bytes) -> bytes:
    addresses = V4[0].to_bytes(4, "big") + V4[1].to_bytes(4, "big")
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, fragment, 64, protocol, 0) + addresses
    return bytes.fromhex("020000000002020000000001") + b"\x08\0" + head + body


def _fragment(following: int, offset: int, more: int) -> bytes:
    return bytes([following, 0]) + struct.pack("!HI", offset | more, 7)


def _options(following: int, length: int = 0) -> bytes:
    return bytes([following, length, 1, 4, 0, 0, 0, 0])


_NA = bytes([136, 0, 0, 0, 0x20, 0, 0, 0]) + V6[1].to_bytes(16, "big") + bytes.fromhex("0201020000000002")
_UDP = struct.pack("!HHHH", 67, 68, 8, 0)
LAYERS = {
    "an advertisement": _ipv6(58, _NA),
    "of another code": _ipv6(58, bytes([136, 1]) + _NA[2:]),
    "cut to four bytes": _ipv6(58, _NA[:4]),
    "cut to eight bytes": _ipv6(58, _NA[:8]),
    "behind hop-by-hop options": _ipv6(0, _options(58) + _NA),
    "behind a routing header": _ipv6(43, bytes([58, 2, 0, 1, 0, 0, 0, 0]) + bytes(16) + _NA),
    "behind authentication": _ipv6(51, bytes([58, 1]) + bytes(10) + _NA),
    "behind a mobility header": _ipv6(135, bytes([58, 0]) + bytes(6) + _NA),
    "in a fragment of its own": _ipv6(44, _fragment(58, 0, 0) + _NA),
    "in a first fragment": _ipv6(44, _fragment(58, 0, 1) + _NA),
    "in a later fragment": _ipv6(44, _fragment(58, 8, 0) + _NA),
    "options in a first fragment": _ipv6(44, _fragment(60, 0, 1) + _options(58) + _NA),
    "options alone in a first fragment": _ipv6(44, _fragment(60, 0, 1) + _options(58)),
    "options in a later fragment": _ipv6(44, _fragment(60, 8, 0) + _NA),
    "options cut in a first fragment": _ipv6(44, _fragment(60, 0, 1) + _options(58, 4)),
    "a first fragment of nothing": _ipv6(44, _fragment(58, 0, 1)),
    "a fragment in a fragment": _ipv6(44, _fragment(44, 0, 1) + _fragment(58, 0, 0) + _NA),
    "options cut": _ipv6(60, _options(58, 9)),
    "options missing": _ipv6(60, b""),
    "an ICMP redirect": _ipv4(0, 1, bytes([5, 0, 0, 0, 0, 0, 0, 0])),
    "a first fragment of UDP": _ipv4(0x2000, 17, _UDP),
    "a later fragment of UDP": _ipv4(0x2001, 17, _UDP),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_behind_headers_and_in_fragments(bridge: Bridge, name: str) -> None:
    """What the guard's flows rest on: which protocol, fragment and type a packet shows that hides them."""
    seen = (ToNvaAction(0xFFFF),)
    flows = [
        Flow(0, 10, match(eth_type=kind, ip_proto=protocol), seen, 3, cookie=kind << 16 | protocol)
        for kind in (packets.IPV4, packets.IPV6)
        for protocol in (0, 1, 17, 43, 44, 51, 58, 60, 135)
    ]
    flows += [
        Flow(3, 10, match(eth_type=kind, ip_frag=bits), seen, 7, cookie=bits)
        for kind in (packets.IPV4, packets.IPV6)
        for bits in range(4)
    ]
    flows += [
        Flow(7, 10, match(eth_type=packets.IPV6, ip_proto=58, icmpv6_type=t), seen, cookie=t) for t in (0, 134, 136)
    ]
    flows.append(Flow(7, 10, match(eth_type=packets.IPV4, ip_proto=1, icmpv4_type=5), seen, cookie=5))
    flows.append(Flow(7, 10, match(eth_type=packets.IPV4, ip_proto=17, udp_src=67), seen, cookie=67))
    assert bridge.install(flows) == []
    expected = [r.cookie for r in Tables(flows).run(LAYERS[name], 10) if isinstance(r, ToNva)]
    assert [s.cookie for s in bridge.ask(LAYERS[name], 10)] == expected
    assert len(expected) > 1
