"""The OpenFlow codec against known bytes, against itself, and against garbage."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm.events import PortInfo
from ryu_vmm.flows import (
    FIELDS,
    IN_PORT,
    Action,
    CheckLarger,
    Copy,
    DecTtl,
    Flow,
    FlowChange,
    FlowStats,
    Match,
    Meter,
    Output,
    SetField,
    ToNva,
    set_field,
)
from ryu_vmm.flows import match as make_match
from ryu_vmm.wire import agent, base, openflow, oxm

# What Ryu 4.34 serialises for the same content (xid 7): an implementation that is not ours.
KNOWN_ADD = bytes.fromhex(
    "040e00d000000007000000000000123400000000000000000a00001e00000064ffffffffffffffffffffffff00010000"
    "0001003200013e04c0a86401800000040000000180000a020800800019080a000000ff00000080004c08000000000000"
    "006400000000000000040048000000000019001080004c0800000000000000640019001000014004c0a8640200000000"
    "0000001000000003000000000000000000000010fffffffdffff00000000000000020018000000000000000000000005"
    "00000000000000050001000828000000"
)
KNOWN_DELETE = bytes.fromhex(
    "040e006800000007000000000000000000000000000000000a04000000000064ffffffffffffffffffffffff00000000"
    "0001003200013e04c0a86401800000040000000180000a020800800019080a000000ff00000080004c08000000000000"
    "0064000000000000"
)
KNOWN_PACKET_OUT = bytes.fromhex(
    "040d002d00000007ffffffff00000005001000000000000000000010fffffff8000000000000000068656c6c6f"
)
KNOWN_STATS_REQUEST = bytes.fromhex(
    "04120038000000070001000000000000ff000000ffffffffffffffff00000000ab00000000000000ff000000000000000001000400000000"
)
FLOW = Flow(
    10,
    100,
    make_match(
        in_port=1,
        eth_type=0x0800,
        ipv4_dst=(0x0A000000, 0xFF000000),
        tun_id=100,
        tun_ipv4_src=bytes([192, 168, 100, 1]),
    ),
    (
        set_field("tun_id", 100),
        set_field("tun_ipv4_dst", bytes([192, 168, 100, 2])),
        Output(3),
        ToNva(0xFFFF),
    ),
    goto=40,
    write_metadata=5,
    cookie=0x1234,
    idle_timeout=30,
)


def test_known_flow_mods() -> None:
    assert agent.decode_flow_mod(KNOWN_ADD) == agent.FlowMod(base.FC_ADD, FLOW, flags=base.FF_SEND_FLOW_REM)
    ours = openflow.encode_flow_mods([FlowChange("add", FLOW)], 7)
    assert ours[:48] == KNOWN_ADD[:48]  # the fixed part; fields follow in another order
    assert sorted(ours) == sorted(KNOWN_ADD)
    bare = Flow(FLOW.table, FLOW.priority, FLOW.match)
    assert agent.decode_flow_mod(KNOWN_DELETE) == agent.FlowMod(base.FC_DELETE_STRICT, bare)
    ours = openflow.encode_flow_mods([FlowChange("delete", FLOW)], 7)
    assert ours[:48] == KNOWN_DELETE[:48]
    assert sorted(ours) == sorted(KNOWN_DELETE)


def test_other_known_messages() -> None:
    assert openflow.encode_packet_out(5, (Output(IN_PORT),), b"hello", xid=7) == KNOWN_PACKET_OUT
    assert openflow.packet_out_prefix(5, (Output(IN_PORT),), 5, xid=7) + b"hello" == KNOWN_PACKET_OUT
    assert agent.decode_packet_out(KNOWN_PACKET_OUT) == (5, (Output(IN_PORT),), b"hello")
    assert openflow.encode_flow_stats_request(7, 0xAB << 56, 0xFF << 56) == KNOWN_STATS_REQUEST
    asked = agent.FlowStatsRequest(0xFF, base.ANY, 0xAB << 56, 0xFF << 56, ())
    assert agent.decode_flow_stats_request(KNOWN_STATS_REQUEST) == asked
    assert openflow.encode_port_desc_request(7) == bytes.fromhex("0412001000000007000d000000000000")
    assert openflow.encode_set_config(7) == bytes.fromhex("0409000c000000070003ffff")
    assert openflow.encode_barrier(7) == bytes.fromhex("0414000800000007")
    asynchronous = struct.unpack("!BBHI6I", openflow.encode_set_async(7))
    assert asynchronous == (4, 28, 32, 7, 3, 0, 7, 7, 3, 0)


def test_a_batch_is_one_message_after_another() -> None:
    batch = openflow.encode_flow_mods([FlowChange("add", FLOW), FlowChange("delete", FLOW)], 9)
    first = openflow.decode_header(batch)
    second = openflow.decode_header(batch, first.length)
    assert (first.xid, second.xid) == (9, 10), "an error names the one that was refused"
    assert first.length + second.length == len(batch)
    assert openflow.encode_flow_mods([], 9) == b""


def test_what_openflow_has_no_room_for_is_refused() -> None:
    with pytest.raises(ValueError, match="no such flow change"):
        openflow.encode_flow_mods([FlowChange("replace", FLOW)], 1)
    with pytest.raises(ValueError, match="no such match field"):
        openflow.encode_flow_mods([FlowChange("add", Flow(0, 0, (("nonsense", b"", None),)))], 1)
    with pytest.raises(ValueError, match="bytes"):
        openflow.encode_packet_out(1, (), bytes(65536))
    for length in (-1, 0x10000):
        with pytest.raises(ValueError, match="larger"):
            openflow.encode_packet_out(1, (CheckLarger(length),), b"")
    with pytest.raises(ValueError, match="bytes"):
        openflow.encode_flow_mods([FlowChange("add", FLOW._replace(actions=(Output(1),) * 4096))], 1)


# --- properties -----------------------------------------------------------------------------------------------
def _item(name: str) -> st.SearchStrategy[tuple[str, bytes, bytes | None]]:
    width = FIELDS[name].width
    values = st.binary(min_size=width, max_size=width)
    every = b"\xff" * width

    def masked(pair: tuple[bytes, bytes | None]) -> tuple[str, bytes, bytes | None]:
        value, mask = pair
        if mask is None or mask == every or not any(mask):
            return (name, value, None)
        return (name, bytes(a & b for a, b in zip(value, mask, strict=True)), mask)

    return st.tuples(values, st.none() | values).map(masked)


def _matches(names: list[str]) -> st.SearchStrategy[Match]:
    ordered = sorted(names, key=list(FIELDS).index)
    return st.tuples(*(_item(name) for name in ordered))


matches = st.lists(st.sampled_from(list(FIELDS)), unique=True, max_size=8).flatmap(_matches)
ports = st.integers(0, 0xFFFFFFFF).filter(lambda port: port != base.PORT_CONTROLLER)
setters = st.sampled_from(list(FIELDS)).flatmap(
    lambda name: st.binary(min_size=FIELDS[name].width, max_size=FIELDS[name].width).map(
        lambda value: SetField(name, value)
    )
)
copies = st.sampled_from(list(oxm.COPIED)).flatmap(
    lambda name: st.sampled_from([n for n in oxm.COPIED if FIELDS[n].width == FIELDS[name].width]).map(
        lambda other: Copy(name, other)
    )
)
checks = st.integers(0, 0xFFFF).map(CheckLarger) | st.just(DecTtl()) | copies
actions: st.SearchStrategy[Action] = ports.map(Output) | st.integers(0, 0xFFFF).map(ToNva) | setters | checks
u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
flows = st.builds(
    Flow,
    st.integers(0, 254),
    u16,
    matches,
    st.lists(actions, max_size=6).map(tuple),
    st.none() | st.integers(0, 254),
    u64,
    u64,
    u16,
)
stats = st.builds(FlowStats, flows, u64, u64, u32.map(float))


@given(flows)
def test_flow_mod_round_trip(flow: Flow) -> None:
    found = agent.decode_flow_mod(openflow.encode_flow_mods([FlowChange("add", flow)], 1))
    assert (found.command, found.flow) == (base.FC_ADD, flow)
    assert (found.flags == base.FF_SEND_FLOW_REM) == (flow.idle_timeout > 0)
    found = agent.decode_flow_mod(openflow.encode_flow_mods([FlowChange("delete", flow)], 1))
    assert found.command == base.FC_DELETE_STRICT
    assert found.flow.key == flow.key


@given(st.lists(stats, max_size=5))
def test_flow_stats_round_trip(entries: list[FlowStats]) -> None:
    assert openflow.decode_flow_stats(agent.encode_flow_stats_reply(1, entries)) == (entries, False)
    assert openflow.decode_flow_stats(agent.encode_flow_stats_reply(1, entries, more=True)) == (entries, True)


def test_long_flow_stats_come_in_parts() -> None:
    entries = [FlowStats(FLOW._replace(priority=n), n, n, 1.5) for n in range(1000)]
    replies = agent.encode_flow_stats_reply(3, entries)
    found: list[FlowStats] = []
    more, offset = True, 0
    while more:
        length = openflow.decode_header(replies, offset).length
        part, more = openflow.decode_flow_stats(replies[offset : offset + length])
        found += part
        offset += length
    assert offset == len(replies)
    assert found == entries


@given(
    u32,
    st.binary(max_size=100),
    u64,
    st.none() | st.integers(0, (1 << 24) - 1),
    st.none() | st.sampled_from([4, 16]),
    u64,
    st.sampled_from([0, 1, 0xFFFFFFFF]),
)
def test_packet_in_round_trip(
    in_port: int, frame: bytes, cookie: int, tun_id: int | None, width: int | None, metadata: int, reg0: int
) -> None:
    source = bytes(range(1, width + 1)) if width else None
    message = agent.encode_packet_in(in_port, frame, cookie, 7, 1, tun_id, source, source, metadata, reg0=reg0)
    if source is not None and tun_id is None:
        tun_id = 0  # a switch leaves out what is zero
    expected = openflow.PacketIn(1, 7, cookie, in_port, tun_id, source, frame, metadata)
    assert openflow.decode_packet_in(message) == expected


@given(u32, st.lists(actions, max_size=6).map(tuple), st.binary(max_size=100))
def test_packet_out_round_trip(in_port: int, given_actions: tuple[Action, ...], frame: bytes) -> None:
    message = openflow.encode_packet_out(in_port, given_actions, frame)
    assert agent.decode_packet_out(message) == (in_port, given_actions, frame)


names = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=15)
port_infos = st.builds(PortInfo, u32, names, st.booleans())


@given(st.lists(port_infos, max_size=4), st.integers(0, 2))
def test_ports_round_trip(infos: list[PortInfo], reason: int) -> None:
    assert openflow.decode_port_desc(agent.encode_port_desc_reply(5, infos)) == infos
    for info in infos:
        assert openflow.decode_port_status(agent.encode_port_status(reason, info)) == (reason, info)


def test_a_port_down_by_the_administrator_is_down() -> None:
    message = bytearray(agent.encode_port_status(2, PortInfo(1, "p", True)))
    message[16 + 35] |= 1  # config: OFPPC_PORT_DOWN
    assert openflow.decode_port_status(bytes(message)) == (2, PortInfo(1, "p", False))


@given(flows, st.integers(0, 3), u64, u64)
def test_flow_removed_round_trip(flow: Flow, reason: int, packets: int, octets: int) -> None:
    message = agent.encode_flow_removed(flow, reason, packets, octets, 2.5)
    bare = Flow(flow.table, flow.priority, flow.match, cookie=flow.cookie, idle_timeout=flow.idle_timeout)
    assert openflow.decode_flow_removed(message) == (bare, reason, packets, octets, 2.5)


def test_errors() -> None:
    failed = openflow.encode_barrier(77)
    assert openflow.decode_error(agent.encode_error(77, 4, 9, failed)) == (4, 9, 77, 77, failed)
    assert openflow.decode_error(agent.encode_error(77, 4, 9)) == (4, 9, 77, None, b"")
    assert openflow.decode_error(agent.encode_error(1, 0, 0, b"\4bad hello")).failed_xid is None
    experimenter = agent.encode_error(77, 0xFFFF, 2600, b"\x4f\x4e\x46\0" + failed)
    assert openflow.decode_error(experimenter) == (0xFFFF, 2600, 77, 77, failed)


def test_an_error_says_which_flow_was_refused() -> None:
    mod = openflow.encode_flow_mods([FlowChange("add", Flow(25, 10, (), cookie=0xC0FFEE))], 77)
    assert openflow.refused_cookie(openflow.decode_error(agent.encode_error(77, 2, 15, mod[:64]))) == 0xC0FFEE
    for quote in (mod[:12], openflow.encode_barrier(77) + bytes(8), b""):
        assert openflow.refused_cookie(openflow.decode_error(agent.encode_error(77, 2, 15, quote))) is None


# --- actions of routers: what ovs-ofctl of Open vSwitch 3.1 sends for them --------------------------------------
def test_known_actions_of_routers() -> None:
    raw = bytes.fromhex("0018000800000000 ffff001800002320003105ea000000010004000000000000")
    assert oxm.decode_actions(raw) == (DecTtl(), CheckLarger(1514))
    assert oxm.encode_actions((DecTtl(), CheckLarger(1514))) == raw
    copy = bytes.fromhex("ffff0018000023200006003000000000 00000406 00013206")
    assert oxm.decode_actions(copy) == (Copy("eth_src", "nd_tll"),)
    assert oxm.encode_actions((Copy("eth_src", "nd_tll"),)) == copy
    with pytest.raises(ValueError, match="cannot be copied"):
        oxm.encode_actions((Copy("eth_src", "reg1"),))
    fields = bytes.fromhex("0001001880000a0286dd 0001010800000001 00000001 00013a0140")
    raw = fields[:2] + len(fields).to_bytes(2, "big") + fields[4:] + bytes(-len(fields) % 8)
    expected = make_match(eth_type=0x86DD, reg0=(1, 1), ip_ttl=64)
    assert oxm.decode_match(raw, 0, len(raw))[0] == expected


def test_what_only_resembles_them_stays_what_it_is() -> None:
    """Another register, another bit of it, another length: comparable, and encoded back to the same bytes."""
    for raw in (
        "ffff001800002320003105ea000000010204000000000000",
        "ffff001800002320003105ea000100010004000000000000",
        "ffff001800002320003105ea000000010004000000000001",
        "ffff002000002320003105ea0000000100040000000000000000000000000000",
        "ffff00180000232000060018000000080000200400002204",  # a part of a field
        "ffff0018000023200006003000000000800008068000dc06",  # fields by other numbers
        "ffff00180000232000060030000000000000040600010204",  # into a narrower one
        "001800080000ffff",
        "00180010000000000000000000000000",
    ):
        (found,) = oxm.decode_actions(bytes.fromhex(raw))
        assert isinstance(found, SetField), raw
        assert oxm.encode_actions((found,)) == bytes.fromhex(raw)


def test_no_action_is_taken_for_another() -> None:
    kinds = [
        Output(5),
        ToNva(5),
        Meter(5),
        CheckLarger(5),
        DecTtl(),
        Copy("", ""),
        SetField("reg0", bytes(4)),
        SetField("", b""),
    ]
    assert len({*kinds, ()}) == len(kinds) + 1  # type: ignore[arg-type]


# --- what flows.py has no word for -----------------------------------------------------------------------------
def _match(*oxms: bytes) -> bytes:
    body = b"".join(oxms)
    size = 4 + len(body)
    return struct.pack("!HH", 1, size) + body + bytes(-size % 8)


def test_unknown_fields_are_comparable_and_encode_back() -> None:
    raw = _match(
        bytes.fromhex("ffff0b08") + b"ONF\0" + b"\0\3" + b"\0\1",  # experimenter's, value outside its mask
        bytes.fromhex("00010604") + b"abcd",  # NXM register 3
        bytes.fromhex("80001a02") + b"\0\x50",  # tcp_src
        bytes.fromhex("80000004") + b"\0\0\0\1",
    )
    found, after = oxm.decode_match(raw, 0, len(raw))
    assert after == len(raw)
    assert found == (
        ("in_port", b"\0\0\0\1", None),
        ("oxm_0001_03", b"abcd", None),
        ("oxm_8000_0d", b"\0\x50", None),
        ("oxm_ffff_05_4f4e4600", b"\0\1", b"\0\1"),
    )
    again = oxm.encode_match(found)
    assert oxm.decode_match(again, 0, len(again))[0] == found


def test_unknown_actions_and_instructions_are_comparable_and_encode_back() -> None:
    unknown = bytes.fromhex("ffff001000002320001b000000000000")  # an extension of Nicira's
    meter = bytes.fromhex("0006000800000005")
    partial = struct.pack("!HH4xQQ", 2, 24, 1, 3)  # metadata under another mask
    raw = struct.pack("!HH4x", 4, 8 + len(unknown)) + unknown + meter + partial
    found = oxm.decode_instructions(raw)
    assert found.actions == (
        Meter(5),
        SetField("action_ffff", unknown[4:]),
        SetField("instruction_0002", partial[4:]),
    )
    assert found.write_metadata == 0
    assert oxm.encode_instructions(*found) == raw


def test_masks_are_canonical() -> None:
    raw = _match(
        bytes.fromhex("8000070c") + bytes.fromhex("02000000000a") + b"\xff" * 6,
        bytes.fromhex("8000090c") + bytes(12),
        bytes.fromhex("80000510") + b"\xff" * 8 + bytes(7) + b"\1",
    )
    found, _ = oxm.decode_match(raw, 0, len(raw))
    assert found == (
        ("metadata", bytes(7) + b"\1", bytes(7) + b"\1"),
        ("eth_dst", bytes.fromhex("02000000000a"), None),
    )
