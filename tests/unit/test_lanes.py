"""Which lane a packet-in waits in, whatever a switch makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm import lanes
from ryu_vmm.tables import Why, cookie
from ryu_vmm.wire import agent

OWN = {Why.PROBE, Why.HOLD, Why.STALE, Why.REDIRECT, Why.MARK}


@pytest.mark.parametrize("why", list(Why))
def test_ports_have_lanes_and_so_has_each_move(why: Why) -> None:
    one = agent.encode_packet_in(7, bytes(60), cookie(why, 1), tun_id=100, tun_src=b"\1\2\3\4")
    same = agent.encode_packet_in(7, bytes(1400), cookie(why, 1))
    other_port = agent.encode_packet_in(8, bytes(60), cookie(why, 1))
    other_object = agent.encode_packet_in(7, bytes(60), cookie(why, 2))
    lane = lanes.lane_of(one)
    assert lane == lanes.lane_of(same)
    assert lanes.is_own(lane) is (why in OWN)
    assert lanes.port_of(lane) == (None if why in OWN else 7)
    assert (lane == lanes.lane_of(other_port)) is (why in OWN)
    assert (lane == lanes.lane_of(other_object)) is (why not in OWN)
    if why not in OWN:
        assert lanes.of_port(7) == lane


def test_a_foreign_cookie_makes_no_lane_of_ours() -> None:
    foreign = (cookie(Why.PROBE, 1) & ((1 << 48) - 1)) | 0xABCD << 48
    assert lanes.lane_of(agent.encode_packet_in(7, bytes(60), foreign)) == lanes.of_port(7)


@given(st.binary(max_size=80))
def test_any_bytes_have_a_lane(message: bytes) -> None:
    lane = lanes.lane_of(message)
    assert len(lane) <= 8
    assert lanes.port_of(lane) is None or lanes.port_of(lane) in range(1 << 32)


def test_many_of_one_port_at_once_are_a_flood() -> None:
    def packets(*ports: int) -> list[bytes]:
        return [agent.encode_packet_in(port, bytes(60), cookie(Why.RESOLVE)) for port in ports]

    assert lanes.is_flood(packets(*[7] * (lanes.MANY + 1)))
    assert not lanes.is_flood(packets(*[7] * lanes.MANY))
    assert not lanes.is_flood(packets(*range(lanes.MANY + 1)))
    assert not lanes.is_flood([])
