"""Open vSwitch and the emulated switches turn the same questions for addresses into the same answers."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from benchmarks import answers
from test_emulation_ovs import MACS, PORTS, V6, Bridge, Seen

from ryu_vmm import replies
from ryu_vmm.emulation import packets
from ryu_vmm.emulation.tables import Tables, ToNva
from ryu_vmm.flows import IN_PORT, Flow, Output, match, set_field
from ryu_vmm.flows import ToNva as ToNvaAction
from ryu_vmm.model import Gateway, Interface, Network, NetworkKind, Place, Session, Subnet
from ryu_vmm.state import State
from ryu_vmm.tables import RESOLVE
from ryu_vmm.wire import frames

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    from topologies import OverlayNet

    with OverlayNet(nves=1, vms=0, controller=None) as net:
        found = Bridge(f"{net.nve('nve1').folder}/br-int.mgmt")
        yield found
        found.sock.close()


GATE = Gateway(b"\2\0\0\0\xaa\1", bytes([10, 0, 0, 254]), bytes.fromhex("20010db8" + "00" * 11 + "fe"))


def answering_flows() -> list[Flow]:
    """Those of a network with one guest and a gateway, where a subnet is answered for; all that goes back shows."""
    state = State()
    state.sessions["n1"] = Session("n1", 1)
    subnets = (Subnet(bytes([10, 0, 0, 0]), 24, "n1"), Subnet(GATE.ipv6[:8] + bytes(8), 64, "n1"))  # type: ignore[index]
    state.put("networks", 7, Network("tasks", 7, kind=NetworkKind.L3, gateway=GATE, subnets=subnets))
    state.put("networks", 8, Network("blue", 8))
    for vni, host in ((7, 1), (8, 2)):
        address = GATE.ipv6[:15] + bytes([host])  # type: ignore[index]
        given = (vni, MACS[1].to_bytes(6, "big"), (bytes([10, 0, 0, host]),), (address,), Place("n1", f"tap{vni}"))
        state.put("interfaces", f"vm{vni}/e", Interface(f"vm{vni}/e", f"vm{vni}", "e", *given))
    found = [*replies.base(Session("n1", 1)), *replies.gateway(state, "n1", 7)]
    found += replies.interface(state, "n1", "vm8/e")
    shown = [
        flow._replace(actions=tuple(ToNvaAction(0xFFFF) if a == Output(IN_PORT) else a for a in flow.actions))
        for flow in found
    ]
    starts = [Flow(0, 1, match(in_port=10 + n), (set_field("tun_id", 7 + n),), RESOLVE) for n in range(2)]
    return [*starts, *shown]


def some_question(chance: random.Random) -> bytes:
    """A guest's question, or something like it: padded, with other options, to whom and about whom ever."""
    host = chance.choice([1, 2, 9, 254])
    mac = MACS[0].to_bytes(6, "big")
    if chance.random() < 0.4:
        to = chance.choice([b"\xff" * 6, GATE.mac])
        frame = frames.build_arp_request(mac, bytes([10, 0, 0, chance.choice([0, 1])]), bytes([10, 0, 0, host]), to)
        return frame + bytes(chance.choice([0, 18]))
    src = chance.choice([bytes(16), V6[1].to_bytes(16, "big"), V6[0].to_bytes(16, "big")])
    target = GATE.ipv6[:15] + bytes([host])  # type: ignore[index]
    sll, nonce = b"\1\1" + mac, b"\x0e\1" + bytes(range(6))
    options = chance.choice([sll, sll, sll, sll + nonce, nonce + sll, b"", nonce])
    fields = {"eth_src": mac, "eth_dst": chance.choice([b"\x33\x33\xff\0\0\1", GATE.mac]), "ipv6_src": src}
    fields |= {"ipv6_dst": b"\xff\2" + bytes(9) + b"\1\xff\0\0\1", "icmpv6_type": 135, "nd_target": target}
    return packets.build({**fields, "ip_ttl": chance.choice([255, 255, 255, 64])}, options)


def test_what_answers_cost_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MEMBERS", (3,))
    part = answers.measure(1, lambda text: None)
    found = part.data["3"]
    assert found["flows"] - found["without"] > 3 * 3
    assert all(seconds > 0 for seconds in found["seconds"].values())


def test_questions_are_turned_round_alike(bridge: Bridge) -> None:
    flows = answering_flows()
    assert bridge.install(flows) == []
    chance, answered = random.Random(1), 0
    for _ in range(300):
        frame, port = some_question(chance), chance.choice(PORTS)
        expected = [
            Seen(r.cookie or 0, r.table, r.context.get("tun_id", 0), None, r.frame)
            for r in Tables(flows).run(frame, port)
            if isinstance(r, ToNva)
        ]
        seen = bridge.ask(frame, port)
        assert seen == expected, frame.hex()
        answered += sum(one.frame != frame for one in seen)
    assert answered > 50
