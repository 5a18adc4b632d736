"""The oracle itself: flow tables behave as OpenFlow 1.3 and Open vSwitch say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm.emulation import packets
from ryu_vmm.emulation.rules import Refused, comprises
from ryu_vmm.emulation.tables import TABLE, Dropped, Out, Tables, ToNva
from ryu_vmm.flows import IN_PORT, Flow, FlowChange, Match, Output, SetField, match, set_field
from ryu_vmm.flows import ToNva as ToNvaAction

A, B, C = (bytes((2, 0, 0, 0, 0, n)) for n in (1, 2, 3))
HERE, THERE = b"\x0a\0\0\x01", b"\x0a\0\0\x02"


def frame(dst: bytes = B, src: bytes = A) -> bytes:
    return packets.build({"eth_dst": dst, "eth_src": src, "eth_type": 0x88B5}, b"payload")


def flow(priority: int, on: Match, *actions: object, table: int = 0, cookie: int = 0, **more: object) -> Flow:
    return Flow(table, priority, on, tuple(actions), cookie=cookie, **more)  # type: ignore[arg-type]


def test_the_highest_priority_wins_whatever_the_order() -> None:
    flows = [flow(1, (), Output(1)), flow(9, match(eth_dst=B), Output(9)), flow(5, match(eth_src=A), Output(5))]
    for order in (flows, flows[::-1]):
        assert Tables(order).run(frame(), 7) == [Out(9, frame=frame())]


def test_no_flow_drops() -> None:
    assert Tables().run(frame(), 1) == [Dropped(None)]
    tables = Tables([flow(1, (), cookie=3, goto=4)])
    assert tables.run(frame(), 1) == [Dropped(None)]
    assert tables.run(frame(), 1)[0].table == 4  # type: ignore[union-attr]


def test_a_flow_without_actions_drops_and_counts() -> None:
    drop = flow(1, (), cookie=7)
    tables = Tables([drop])
    assert tables.run(frame(), 1) == [Dropped(7)]
    assert tables.packets(drop) == 1


def test_never_out_of_the_port_it_came_in_on_except_by_name() -> None:
    tables = Tables([flow(1, (), Output(1), Output(2), cookie=5)])
    assert [out.port for out in tables.run(frame(), 1) if isinstance(out, Out)] == [2]
    assert Tables([flow(1, (), Output(1), cookie=5)]).run(frame(), 1) == [Dropped(5)]
    assert Tables([flow(1, (), Output(IN_PORT))]).run(frame(), 1) == [Out(1, frame=frame())]


def test_later_tables_see_metadata_and_rewrites() -> None:
    tables = Tables(
        [
            flow(1, (), SetField("eth_dst", C), set_field("tun_id", 100), goto=10, write_metadata=3),
            flow(1, match(metadata=(2, 2), eth_dst=C, tun_id=100), goto=20, write_metadata=4, table=10),
            flow(1, match(metadata=7), Output(4), table=20),
        ],
        tunnel=1,
    )
    assert tables.run(frame(), 2) == [Out(4, frame=frame(dst=C))]


def test_each_output_shows_the_packet_as_it_was_then() -> None:
    tunnel = (set_field("tun_ipv4_dst", THERE), Output(1), SetField("eth_dst", C), Output(1))
    tables = Tables(
        [flow(1, (), Output(5), set_field("tun_id", 9), set_field("tun_ipv4_src", HERE), *tunnel)], tunnel=1
    )
    assert tables.run(frame(), 2) == [
        Out(5, frame=frame()),
        Out(1, 9, HERE, THERE, frame()),
        Out(1, 9, HERE, THERE, frame(dst=C)),
    ]


def test_tunnel_packets_match_by_key_and_source() -> None:
    tables = Tables(
        [flow(1, match(in_port=1, tun_id=7, tun_ipv4_src=THERE), Output(3)), flow(0, (), cookie=1)], tunnel=1
    )
    assert tables.run(frame(), 1, tun_id=7, tun_src=THERE, tun_dst=HERE) == [Out(3, frame=frame())]
    assert tables.run(frame(), 1, tun_id=8, tun_src=THERE) == [Dropped(1)]
    assert tables.run(frame(), 1, tun_id=7, tun_src=HERE) == [Dropped(1)]
    six = bytes(15) + b"\x01"
    tables = Tables([flow(1, match(tun_ipv6_src=six), Output(3))])
    assert tables.run(frame(), 1, tun_id=0, tun_src=six) == [Out(3, 0, six, None, frame())]


def test_an_ipv4_tunnel_destination_hides_an_ipv6_one() -> None:
    far = bytes(15) + b"\x02"
    six = (set_field("tun_ipv6_src", bytes(15) + b"\x01"), set_field("tun_ipv6_dst", far), Output(1))
    tables = Tables([flow(1, (), *six)], tunnel=1)
    assert tables.run(frame(), 2) == [Out(1, None, bytes(15) + b"\x01", far, frame())]
    assert tables.run(frame(), 3, 5, THERE, HERE) == [Out(1, 5, THERE, HERE, frame())]
    forgotten = Tables([flow(1, (), set_field("tun_ipv4_dst", 0), *six)], tunnel=1)
    assert forgotten.run(frame(), 3, 5, THERE, HERE) == [Out(1, 5, bytes(15) + b"\x01", far, frame())]


def test_to_the_nva_with_cookie_reason_and_context() -> None:
    tables = Tables([flow(1, match(in_port=4), set_field("tun_id", 6), ToNvaAction(0xFFFF), Output(2), cookie=8)])
    sent, out = tables.run(frame(), 4)
    assert sent == ToNva(8, 1)
    assert isinstance(sent, ToNva)
    assert (sent.frame, sent.in_port, dict(sent.context)) == (frame(), 4, {"tun_id": 6})
    assert out.port == 2  # type: ignore[union-attr]
    assert Tables([flow(0, (), ToNvaAction(128), cookie=2)]).run(frame(), 4) == [ToNva(2, 0)]  # table miss


def test_a_packet_out_goes_where_its_actions_say() -> None:
    tables = Tables([flow(1, match(in_port=5), Output(6))])
    assert tables.execute((Output(3),), frame()) == [Out(3, frame=frame())]
    assert tables.execute((Output(TABLE),), frame(), in_port=5) == [Out(6, frame=frame())]
    assert tables.execute((), frame()) == [Dropped(None)]


def test_add_replaces_the_same_key_and_keeps_the_count() -> None:
    tables = Tables([flow(1, match(in_port=1), Output(2))])
    tables.run(frame(), 1)
    tables.add(flow(1, match(in_port=1), Output(3), cookie=4))
    assert tables.flows == [flow(1, match(in_port=1), Output(3), cookie=4)]
    assert tables.packets(tables.flows[0]) == 1


def test_modify_changes_instructions_only() -> None:
    tables = Tables([flow(1, match(in_port=1), Output(2), cookie=4), flow(2, match(in_port=2), Output(2))])
    tables.modify(flow(7, match(in_port=1), Output(9), cookie=5))
    assert tables.flows == [flow(2, match(in_port=2), Output(2)), flow(1, match(in_port=1), Output(9), cookie=4)]
    assert tables.modify(flow(7, match(in_port=1), Output(9)), strict=True) == []


def test_delete_takes_what_the_match_comprises() -> None:
    wide, narrow = flow(1, match(in_port=1)), flow(2, match(in_port=1, eth_dst=B))
    other, below = flow(3, match(in_port=2)), flow(1, match(in_port=1), table=5)
    everything = [wide, narrow, other, below]

    def left(**arguments: object) -> list[Flow]:
        tables = Tables(everything)
        tables.delete(**arguments)  # type: ignore[arg-type]
        return tables.flows

    assert left(match=match(in_port=1)) == [other]
    assert left(match=match(in_port=1), table=0) == [other, below]
    assert left(match=match(in_port=1), table=0, priority=1) == [other, narrow, below]
    assert left(match=match(in_port=1), table=0, priority=4) == [other, narrow, wide, below]
    assert left() == []


def test_delete_narrowed_by_cookie_and_output() -> None:
    a, b = flow(1, match(in_port=1), Output(4), cookie=0x10), flow(1, match(in_port=2), Output(5), cookie=0x21)
    tables = Tables([a, b])
    assert [e.flow for e in tables.delete(cookie=0x20, cookie_mask=0xF0)] == [b]
    tables = Tables([a, b])
    assert [e.flow for e in tables.delete(out_port=4)] == [a]


def test_changes_of_a_difference() -> None:
    a, b = flow(1, match(in_port=1)), flow(1, match(in_port=2))
    tables = Tables([a])
    tables.change(FlowChange("add", b))
    tables.change(FlowChange("delete", a))
    assert tables.flows == [b]


def test_idle_and_hard_timeouts() -> None:
    tables = Tables()
    tables.add(flow(1, match(in_port=1), idle_timeout=5), now=0.0)
    tables.add(flow(1, match(in_port=2)), now=0.0, hard_timeout=8)
    tables.run(frame(), 1, now=4.0)
    assert tables.expire(8.0 - 0.001) == []
    assert [reason for _, reason in tables.expire(8.0)] == [1]
    assert [reason for _, reason in tables.expire(9.0)] == [0]
    assert len(tables) == 0


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (flow(1, match(ipv4_dst=1)), (4, 9)),
        (flow(1, match(eth_type=0x0806, ipv4_dst=1)), (4, 9)),
        (flow(1, match(eth_type=0x86DD, ip_proto=58, nd_target=1)), (4, 9)),
        (flow(1, match(eth_type=0x86DD, ip_proto=58, icmpv6_type=136, nd_sll=1)), (4, 9)),
        (flow(1, match(in_port=(1, 1))), (4, 8)),
        (flow(1, match(eth_dst=(b"\x01\0\0\0\0\x01", b"\x01\0\0\0\0\0"))), (4, 5)),
        (flow(1, (), set_field("arp_op", 2)), (2, 10)),
        (flow(1, (), set_field("in_port", 2)), (2, 13)),
        (flow(1, (), goto=5, table=5), (3, 2)),
        (flow(1, (), table=255), (5, 2)),
    ],
)
def test_what_a_switch_refuses(bad: Flow, error: tuple[int, int]) -> None:
    tables = Tables()
    with pytest.raises(Refused) as caught:
        tables.add(bad)
    assert (caught.value.type, caught.value.code) == error
    assert tables.flows == []


# --- against the plain definition -------------------------------------------------------------------------------------
small = st.integers(0, 3)
masks = st.sampled_from([None, 1, 2])


@st.composite
def matches(draw: st.DrawFn) -> Match:
    fields: dict[str, int | tuple[int, int]] = {}
    for name in draw(st.sets(st.sampled_from(["in_port", "eth_dst", "eth_src", "tun_id"]))):
        value, mask = draw(small), draw(masks)
        fields[name] = value if mask is None or name == "in_port" else (value & mask, mask)
    return match(**fields)  # type: ignore[arg-type]


def fits(on: Match, fields: dict[str, int]) -> bool:
    for name, value, mask in on:
        bits = int.from_bytes(mask, "big") if mask else -1
        if (fields[name] ^ int.from_bytes(value, "big")) & bits:
            return False
    return True


@given(st.lists(st.tuples(matches(), st.booleans()), max_size=30), small, small, small, small)
def test_lookup_equals_trying_every_flow(
    given_flows: list[tuple[Match, bool]], in_port: int, dst: int, src: int, key: int
) -> None:
    tables = Tables()
    kept: dict[Match, Flow] = {}
    for number, (on, keep) in enumerate(given_flows):  # priorities differ, so that there is one answer
        new = flow(100 + number, on, cookie=number)
        tables.add(new)
        if keep:
            kept[on] = new
        else:
            tables.delete(on, 0, new.priority)
    # entries of an equal match but another priority live side by side
    fields = {"in_port": in_port, "eth_dst": dst, "eth_src": src, "tun_id": key}
    fitting = [new for new in tables.flows if fits(new.match, fields)]
    best = max(fitting, key=lambda f: f.priority, default=None)
    packet = {"eth_dst": dst, "eth_src": src}
    assert tables.run(packet, in_port, tun_id=key) == [Dropped(best.cookie if best else None)]
    assert {new.match for new in tables.flows} == set(kept)


@given(matches(), matches())
def test_comprises_is_right_for_every_packet(wide: Match, narrow: Match) -> None:
    if comprises(wide, narrow):
        for number in range(256):
            fields = {
                "in_port": number & 3,
                "eth_dst": number >> 2 & 3,
                "eth_src": number >> 4 & 3,
                "tun_id": number >> 6 & 3,
            }
            assert fits(wide, fields) or not fits(narrow, fields)
