"""Packets of layer 3 as bytes: what a router makes of them, and the core that all NVEs' routers ask."""

from __future__ import annotations

from collections.abc import Callable

from l3town import SIR, VNI, Layer3, well_formed
from outside import GATEWAY, ILA, ROUTED, TUNNEL, ip, locator, mac, packet
from test_wire_ip import SAMPLES

from ryu_vmm import events as ev
from ryu_vmm.model import Addressing, Answer, Leave
from ryu_vmm.tables import Why, cookie
from ryu_vmm.wire import frames, icmp
from ryu_vmm.wire import ip as packets

Take = Callable[[bytes], object]
ROUTER = (mac(99), (ip("169.254.1.1"), ip("fe80::1")))
REASONS = list(Why)
#: What a router does to a guest's packet, and says about it.
ANSWERS: tuple[Take, ...] = (
    packets.routed,
    lambda frame: packets.fragment(frame, 68),
    lambda frame: icmp.time_exceeded(frame, *ROUTER),
    lambda frame: icmp.unreachable(frame, *ROUTER, icmp.Unreachable.HOST),
    lambda frame: icmp.packet_too_big(frame, *ROUTER, 68),
    lambda frame: icmp.echo_reply(frame, *ROUTER),
)


def routing_core() -> Take:
    """Packet-ins of any content that NVEs do not route by themselves, while tasks move and have moved.

    The first six bytes choose reason, port, what the cookie is about, and where the packet has come from.
    """
    world = Layer3(3, leave=Leave(Answer.UNREACHABLE, 86400))
    for n, nve in ((1, "n1"), (2, "n2"), (3, "n3"), (4, "n1")):
        world.task(n, nve)
    for n in (1, 4):
        world.handle(ev.MoveRequested(f"t{n}", "n2", address=Addressing.CHANGE))
        world.advance(1.0)
    world.through(max(world.nva.state.moves.values(), key=lambda move: move.id), "tap-t4")
    world.out.clear()
    sources = (None, ip("192.168.100.3"), ip("fd00:100::2"), ip("203.0.113.9"))

    def take(data: bytes) -> frozenset[str]:
        head = data[:6].ljust(6, b"\0")
        why = REASONS[head[0] % len(REASONS)]
        port = (TUNNEL, ROUTED, ILA, 10, 11, 12)[head[1] % 6]
        given = cookie(why, int.from_bytes(head[2:5], "big"))
        frame = data[6:]
        world.now += 0.001
        world.nva.counters.clear()
        world.handle(ev.PacketSeen(1 + head[5] % 3, port, given, frame, sources[head[5] // 3 % 4]))
        for _, _, sent in world.out:
            assert len(sent) >= 14
            if why in (Why.ROUTER, Why.EXPIRED_TTL, Why.UNREACHABLE):  # nothing but what the router says itself
                assert sent[6:12] == GATEWAY.mac and well_formed(sent), sent.hex()
        world.out.clear()
        said = frozenset({why.name, *world.nva.counters, *(kind for kind, _ in world.reports)})
        world.reports.clear()
        return said

    return take


def routing_core_seeds() -> tuple[bytes, ...]:
    """One of each kind, for each reason to hand it over."""
    six, sir = ip("2001:db8:1:1::1"), SIR + (1).to_bytes(8, "big")
    seen = (
        packet(ip("10.1.1.1"), ip("10.1.9.9"), mac(1), ttl=1),
        packet(ip("10.1.1.1"), ip("10.1.1.4"), mac(1), payload=bytes(2000)),
        packet(six, ip("2001:db8:9::9"), mac(1), ttl=1, payload=bytes(1500)),
        packet(sir, SIR + (9).to_bytes(8, "big"), mac(1)),
        packet(sir, locator(1) + (4).to_bytes(8, "big"), mac(1)),
        frames.build_arp_request(mac(1), ip("10.1.1.1"), ip("169.254.1.1")),
        frames.build_ns(mac(1), six, ip("fe80::1")),
        frames.build_na(ip("fd00:100::2"), mac(9), ip("fe80::69"), b"\x02\x69\0\0\0\1"),
        *SAMPLES,
    )
    about = (VNI.to_bytes(3, "big"), bytes(3))
    whys = [REASONS.index(why) for why in REASONS if why >= Why.ROUTER or why is Why.RESOLVE]
    return tuple(bytes([why, 3, *vni, n % 9]) + frame for why in whys for vni in about for n, frame in enumerate(seen))
