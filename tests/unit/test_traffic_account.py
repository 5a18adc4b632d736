"""The account of a flow, against a slow and obvious one; and what VMs say when they announce themselves."""

from __future__ import annotations

import json
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies.errors import TopologyError
from topologies.frames import RARP_TIMES, announcement, checksum, garp, rarp, unsolicited_na
from topologies.specs import VMSpec, default_vms, default_vns
from topologies.traffic.arrivals import Arrivals, count, read
from topologies.traffic.svg import Canvas, Scale

SPEC = VMSpec("vm1", "vn1", "nve1", "02:00:00:00:00:01", "10.0.0.1", "2001:db8::1")


def arrivals(numbers: list[int], sent: int = 0) -> Arrivals:
    times = array("Q", range(1_000, 1_000 + len(numbers)))
    return Arrivals(1, array("Q", numbers), array("Q", [500] * len(numbers)), times)


@given(st.data())
def test_the_count_is_that_of_sets(data: st.DataObject) -> None:
    sent = data.draw(st.integers(1, 40))
    numbers = data.draw(st.lists(st.integers(0, sent - 1), max_size=60))
    got = count(arrivals(numbers), sent)
    assert got.received == len(set(numbers))
    assert got.lost == sent - len(set(numbers))
    assert got.duplicated == len(numbers) - len(set(numbers))
    first = list(dict.fromkeys(numbers))
    assert got.reordered == sum(any(earlier > n for earlier in first[:i]) for i, n in enumerate(first))
    missing = sorted(set(range(sent)) - set(numbers))
    runs = {n for start, length in got.lost_runs for n in range(start, start + length)}
    assert runs <= set(missing)
    if len(got.lost_runs) < 10:
        assert sorted(runs) == missing


def test_stalls_and_delays() -> None:
    ms = 1_000_000
    sent, arrived = [0, 1 * ms, 2 * ms, 3 * ms], [1 * ms, 2 * ms, 52 * ms, 53 * ms]
    flow = Arrivals(1, array("Q", range(4)), array("Q", sent), array("Q", arrived))
    got = count(flow, 4)
    assert got.stall == pytest.approx(0.050)
    assert got.stall_at == pytest.approx(0.002)
    assert got.delay_max == pytest.approx(0.050)
    assert got.delay_median == pytest.approx(0.050)
    assert got.lost_runs == []


def test_a_number_that_was_never_sent_is_an_error_not_a_count() -> None:
    with pytest.raises(ValueError, match="number 7 arrived, but only 7 were sent"):
        count(arrivals([0, 7]), 7)


def test_files_are_read_back_and_cut_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "flow.bin"
    header = json.dumps({"flow": 3, "count": 2, "fields": ["seq", "sent_ns", "arrived_ns"]}).encode() + b"\n"
    body = b"".join(n.to_bytes(8, "little") for n in (0, 1, 10, 20, 30, 40))
    path.write_bytes(header + body)
    got = read(str(path))
    assert (got.flow, list(got.seq), list(got.sent_ns), list(got.arrived_ns)) == (3, [0, 1], [10, 20], [30, 40])
    path.write_bytes(header + body[:-3])
    with pytest.raises(ValueError, match="cut short"):
        read(str(path))


def test_every_announcement_is_what_the_standards_say() -> None:
    own = bytes.fromhex("020000000001")
    request, reply, reverse = garp(SPEC.mac, "10.0.0.1"), garp(SPEC.mac, "10.0.0.1", reply=True), rarp(SPEC.mac)
    assert request[:12] == reply[:12] == reverse[:12] == b"\xff" * 6 + own
    assert request[12:42] == bytes.fromhex("0806 0001 0800 06 04 0001") + own + b"\n\0\0\1" + bytes(6) + b"\n\0\0\1"
    assert reply[12:42] == bytes.fromhex("0806 0001 0800 06 04 0002") + own + b"\n\0\0\1" + own + b"\n\0\0\1"
    assert reverse[12:42] == bytes.fromhex("8035 0001 0800 06 04 0003") + own + bytes(4) + own + bytes(4)
    assert {len(request), len(reply), len(reverse)} == {60}
    na = unsolicited_na(SPEC.mac, "2001:db8::1")
    assert na[:14] == bytes.fromhex("333300000001") + own + b"\x86\xdd"
    assert na[20:22] == b"\x3a\xff"  # ICMPv6, hop limit 255 (RFC 4861 section 7.1.2)
    assert na[54:56] == b"\x88\x00"
    assert na[58] == 0x20  # override, not solicited, not a router
    pseudo = na[22:54] + (32).to_bytes(4, "big") + (58).to_bytes(4, "big")
    assert checksum(pseudo + na[54:]) == 0


@pytest.mark.parametrize(("kind", "frames"), [
    ("garp-request", 1), ("garp-reply", 1), ("na", 1), ("both", 2), ("rarp", 5), ("none", 0),
])
def test_kinds_of_announcement(kind: str, frames: int) -> None:
    got = announcement(kind, SPEC)
    assert len(got) == frames
    assert [delay for delay, _ in got] == (list(RARP_TIMES) if kind == "rarp" else [0.0] * frames)


def test_what_cannot_be_announced_is_refused() -> None:
    bare = VMSpec("vm1", "vn1", "nve1", "02:00:00:00:00:01", ipv6="2001:db8::1")
    for kind in ("garp-request", "garp-reply"):
        with pytest.raises(TopologyError, match="no address"):
            announcement(kind, bare)
    assert len(announcement("both", bare)) == 1
    with pytest.raises(TopologyError, match="is not one of"):
        announcement("gratuitous", bare)


def test_addresses_are_made_canonical_and_checked() -> None:
    spec = VMSpec("vm1", "vn1", "nve1", "02:00:00:00:00:01", "10.0.0.1", "2001:DB8:0:0::1/80")
    assert (spec.ipv4, spec.ipv6, spec.ip, spec.ip6) == ("10.0.0.1/24", "2001:db8::1/80", "10.0.0.1", "2001:db8::1")
    assert spec.port == "tap-vm1"
    with pytest.raises(TopologyError, match="vm1: ipv4"):
        VMSpec("vm1", "vn1", "nve1", "02:00:00:00:00:01", "10.0.0.256")
    with pytest.raises(TopologyError, match="1 to 11 characters"):
        VMSpec("a-very-long-name", "vn1", "nve1", "02:00:00:00:00:01")


def test_default_vms_are_dealt_to_networks_then_nves() -> None:
    vns = default_vns(2)
    specs = default_vms(6, vns, ["nve1", "nve2"])
    assert [(s.name, s.vn, s.nve) for s in specs] == [
        ("vm1", "vn1", "nve1"), ("vm2", "vn2", "nve1"), ("vm3", "vn1", "nve2"),
        ("vm4", "vn2", "nve2"), ("vm5", "vn1", "nve1"), ("vm6", "vn2", "nve1"),
    ]
    assert len({s.mac for s in specs}) == len({s.ip for s in specs}) == len({s.ip6 for s in specs}) == 6
    over = default_vms(6, vns, ["nve1", "nve2"], overlap=True)
    assert [s.ip for s in over] == ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.3"]
    assert [s.mac for s in over[::2]] == [s.mac for s in over[1::2]]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_ticks_are_round_few_and_inside(low: float, span: float, about: int) -> None:
    scale = Scale(low, low + span, 0, 1000)
    ticks = scale.ticks(about)
    assert len(ticks) <= about + 1
    slack = (scale.high - scale.low) * 1e-6
    assert all(scale.low - slack <= tick <= scale.high + slack for tick in ticks)


def test_text_in_a_picture_is_escaped() -> None:
    canvas = Canvas(10, 10, "a <b> & 'c'")
    canvas.text(0, 0, "<script>")
    assert "<script>" not in canvas.document()
    assert "a &lt;b&gt; &amp; &#x27;c&#x27;" in canvas.document()
