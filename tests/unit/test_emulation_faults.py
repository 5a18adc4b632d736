"""What emulated switches do wrong, they do as ordered."""

from __future__ import annotations

import pytest

from ryu_vmm.emulation.faults import Faults
from ryu_vmm.emulation.flood import BLOCK, Flood
from ryu_vmm.emulation.switch import Switch
from ryu_vmm.flows import Output
from ryu_vmm.wire import agent, openflow
from ryu_vmm.wire import base as of


def talk(switch: Switch, *messages: bytes) -> list[tuple[int, int, int]]:
    """(type, xid, length) of what it answers on a new connection."""
    session = switch.connect()
    session.out.clear()
    session.receive(b"".join(messages), 0.0)
    found = []
    data = b"".join(session.out)
    while data:
        header = openflow.decode_header(data)
        found.append((header.type, header.xid, header.length))
        data = data[header.length :]
    return found


def barriers(*xids: int) -> list[bytes]:
    return [openflow.encode_barrier(xid) for xid in xids]


def test_answers_are_spoiled_so_many_times_and_stay_framed() -> None:
    switch = Switch(1)
    switch.faults.wrong_xid = 1
    assert [xid for _, xid, _ in talk(switch, *barriers(5, 6))] == [5 ^ 0xA5A5A5A5, 6]
    switch.faults.too_long = 1
    assert [length for _, _, length in talk(switch, *barriers(5, 6))] == [0xFFFF, 8]
    switch.faults.cut_short = 1
    echo = openflow.encode_echo_request(7, b"12345678")
    assert [length for _, _, length in talk(switch, echo, echo)] == [12, 16]


def test_barrier_replies_come_newest_first() -> None:
    switch = Switch(1)
    switch.faults.reorder_barriers = 3
    assert [xid for _, xid, _ in talk(switch, *barriers(1, 2, 3, 4))] == [3, 2, 1]


def test_the_nth_of_a_kind_is_refused_and_others_are_ignored() -> None:
    switch = Switch(1)
    switch.faults.refuse_nth = {of.BARRIER_REQUEST: 2}
    kinds = [kind for kind, _, _ in talk(switch, *barriers(1, 2, 3))]
    assert kinds == [of.BARRIER_REPLY, of.ERROR, of.BARRIER_REPLY]
    switch.faults.ignore = {of.BARRIER_REQUEST: 2}
    assert [xid for _, xid, _ in talk(switch, *barriers(1, 2, 3))] == [3]


def test_it_claims_to_be_another() -> None:
    switch = Switch(1, meters=False)
    switch.faults.claims = 99
    session = switch.connect()
    session.out.clear()
    session.receive(of.message(of.FEATURES_REQUEST, 1), 0.0)
    assert int.from_bytes(session.out[0][8:16], "big") == 99


def test_faults_are_off_by_default() -> None:
    assert not Faults().spoils
    assert [xid for _, xid, _ in talk(Switch(1), *barriers(1, 2))] == [1, 2]


@pytest.mark.parametrize("sizes", [(60,), (60, 1400, 61), (BLOCK,)])
def test_a_flood_is_of_whole_messages(sizes: tuple[int, ...]) -> None:
    messages = [agent.encode_packet_in(n, bytes(min(size, 60_000))) for n, size in enumerate(sizes, 1)]
    flood = Flood(messages)
    block = flood.block(0.0)
    found = []
    while block:
        size = openflow.decode_header(block).length
        found.append(block[:size])
        block = block[size:]
    assert len(found) == flood.sent
    assert found == [messages[n % len(messages)] for n in range(len(found))]


def test_a_flood_keeps_to_its_rate() -> None:
    message = agent.encode_packet_in(1, bytes(60))
    flood = Flood([message], rate=1000.0)
    assert flood.block(5.0) == b""
    assert flood.block(5.0105) == message * 10
    assert flood.block(5.0105) == b""
    assert flood.block(5.0155) == message * 5
    assert flood.sent == 15


def test_answers_to_a_flood_are_told_from_others() -> None:
    flood = Flood([agent.encode_packet_in(7, bytes(60))], ports={7})
    answer = openflow.encode_packet_out(0xFFFFFFFD, (Output(7),), bytes(60))
    passed_on = openflow.encode_packet_out(7, (Output(1), Output(2)), bytes(60))
    other = openflow.encode_packet_out(0xFFFFFFFD, (Output(1),), bytes(60))
    assert flood.is_answer(answer) and flood.is_answer(passed_on)
    assert not flood.is_answer(other) and not flood.is_answer(openflow.encode_barrier(7))
    assert flood.answered == 2
