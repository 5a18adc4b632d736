"""The OpenFlow decoders against what is cut short, wrong or noise: DecodeError, and nothing else, comes out."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryu_vmm.errors import DecodeError
from ryu_vmm.events import PortInfo
from ryu_vmm.flows import CheckLarger, DecTtl, Flow, FlowChange, FlowStats, Output, SetField, ToNva, match
from ryu_vmm.wire import agent, base, meters, openflow, oxm

FLOW = Flow(
    10,
    100,
    match(in_port=1, eth_type=0x0800, ipv4_dst=(0x0A000000, 0xFF000000), tun_id=100),
    (SetField("tun_ipv4_dst", bytes([192, 168, 100, 2])), Output(3), CheckLarger(1514), DecTtl(), ToNva(0xFFFF)),
    goto=40,
    write_metadata=5,
    idle_timeout=30,
)


def _match(*oxms: bytes) -> bytes:
    body = b"".join(oxms)
    size = 4 + len(body)
    return struct.pack("!HH", 1, size) + body + bytes(-size % 8)


# --- malformed ------------------------------------------------------------------------------------------------
MALFORMED_MATCHES = {
    "kind": b"\0\0\0\4" + bytes(4),
    "short": b"\0\1\0\3" + bytes(4),
    "long": b"\0\1\0\x20" + bytes(4),
    "header cut": _match(b"\x80\0"),
    "field cut": _match(bytes.fromhex("80000004") + b"\0\1"),
    "wrong width": _match(bytes.fromhex("80000005") + bytes(5)),
    "twice": _match(*[bytes.fromhex("80000004") + bytes(4)] * 2),
    "unknown twice": _match(*[bytes.fromhex("80001a02") + bytes(2)] * 2),
    "masked, odd": _match(bytes.fromhex("80001b03") + bytes(3)),
    "experimenter cut": _match(bytes.fromhex("ffff0002") + bytes(2)),
}


@pytest.mark.parametrize("raw", MALFORMED_MATCHES.values(), ids=MALFORMED_MATCHES)
def test_malformed_match(raw: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        oxm.decode_match(raw, 0, len(raw))
    assert caught.value.cause == "of-match"


MALFORMED_INSTRUCTIONS = {
    "cut": bytes.fromhex("00010008"),
    "length 0": bytes.fromhex("0001000000000000"),
    "length odd": bytes.fromhex("000100090000000000"),
    "too long": bytes.fromhex("0001001005000000"),
    "goto long": bytes.fromhex("00010010050000000000000000000000"),
    "metadata short": bytes.fromhex("0002000800000000"),
    "twice": bytes.fromhex("0001000805000000") * 2,
    "action cut": bytes.fromhex("0004000c0000000000000010"),
    "action length 0": bytes.fromhex("00040010000000000000000000000000"),
    "output short": bytes.fromhex("00040010000000000000000800000003"),
    "set-field cut": bytes.fromhex("000400180000000000190010800000090000000100000000"),
    "set-field masked": bytes.fromhex("00040018000000000019001080000708") + bytes(8),
}


@pytest.mark.parametrize("raw", MALFORMED_INSTRUCTIONS.values(), ids=MALFORMED_INSTRUCTIONS)
def test_malformed_instructions(raw: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        oxm.decode_instructions(raw)
    assert caught.value.cause in ("of-instruction", "of-action", "of-match")


def multipart(kind: int, body: bytes) -> bytes:
    return base.message(base.MULTIPART_REPLY, 1, struct.pack("!HH4x", kind, 0) + body)


METER_CONFIG = struct.pack("!HHIHHII4x", 24, 15, 5, 1, 16, 9, 9)
METER_STATS = struct.pack("!IH6xIQQII", 5, 56, 1, 70, 8000, 1, 0) + bytes(16)


def test_meters() -> None:
    features = struct.pack("!IIIxxxx", 300, 0b110, 0b1011)
    assert meters.decode_meter_features(multipart(base.MP_METER_FEATURES, features)) == 300
    assert meters.decode_meter_config(multipart(base.MP_METER_CONFIG, METER_CONFIG)) == ({5: None}, False)
    assert meters.decode_meter_stats(multipart(base.MP_METER, METER_STATS)) == ({5: (70, 8000)}, False)


Decoder = Callable[[bytes], object]
SAMPLES: dict[str, tuple[Decoder, bytes]] = {
    "packet-in": (openflow.decode_packet_in, agent.encode_packet_in(1, b"x" * 60)),
    "packet-in key": (openflow.decode_packet_in, agent.encode_packet_in(1, b"x" * 60, tun_id=9)),
    "packet-in metadata": (openflow.decode_packet_in, agent.encode_packet_in(1, b"x" * 60, metadata=9)),
    "packet-in tunnel": (
        openflow.decode_packet_in,
        agent.encode_packet_in(1, b"x" * 60, tun_id=5, tun_src=b"abcd", tun_dst=b"efgh", metadata=9),
    ),
    "packet-in tunnel6": (
        openflow.decode_packet_in,
        agent.encode_packet_in(1, b"x" * 60, tun_id=5, tun_src=b"a" * 16, tun_dst=b"b" * 16),
    ),
    "flow stats": (openflow.decode_flow_stats, agent.encode_flow_stats_reply(1, [FlowStats(FLOW, 1, 2, 3.0)] * 2)),
    "flow removed": (openflow.decode_flow_removed, agent.encode_flow_removed(FLOW)),
    "error": (openflow.decode_error, agent.encode_error(1, 4, 9, bytes(64))),
    "port status": (openflow.decode_port_status, agent.encode_port_status(0, PortInfo(1, "tap-vm1", True))),
    "port desc": (openflow.decode_port_desc, agent.encode_port_desc_reply(1, [PortInfo(1, "tap-vm1", True)] * 2)),
    "meter features": (
        meters.decode_meter_features,
        multipart(base.MP_METER_FEATURES, struct.pack("!IIIxxxx", 300, 0b110, 0b1011)),
    ),
    "meter config": (meters.decode_meter_config, multipart(base.MP_METER_CONFIG, METER_CONFIG + METER_CONFIG)),
    "meter stats": (meters.decode_meter_stats, multipart(base.MP_METER, METER_STATS + METER_STATS)),
    "flow mod": (agent.decode_flow_mod, openflow.encode_flow_mods([FlowChange("add", FLOW)], 1)),
    "packet-out": (agent.decode_packet_out, openflow.encode_packet_out(1, FLOW.actions, b"x" * 60)),
    "stats request": (agent.decode_flow_stats_request, openflow.encode_flow_stats_request(1)),
    "role request": (agent.decode_role_request, base.message(base.ROLE_REQUEST, 1, bytes(16))),
}


def outcome(decode: Decoder, message: bytes) -> object:
    """What ``decode`` returns, or the cause of its refusal; any other exception fails the test."""
    try:
        return decode(message)
    except DecodeError as error:
        assert error.cause.startswith("of-")  # noqa: PT017 -- most messages are refused, some are not
        return error.cause


@pytest.mark.parametrize(("decode", "message"), SAMPLES.values(), ids=SAMPLES)
def test_every_truncation_is_refused(decode: Decoder, message: bytes) -> None:
    decode(message)
    for length in range(len(message)):
        assert isinstance(outcome(decode, message[:length]), str)  # the length field is wrong now
        if length >= 8:
            outcome(decode, message[:2] + length.to_bytes(2, "big") + message[4:length])


@pytest.mark.parametrize(("decode", "message"), SAMPLES.values(), ids=SAMPLES)
def test_other_messages_are_refused(decode: Decoder, message: bytes) -> None:
    assert outcome(decode, b"\1" + message[1:]) == "of-version"
    assert outcome(decode, message[:1] + b"\x63" + message[2:]) == "of-type"
    assert outcome(decode, message + b"\0") == "of-length"


@settings(max_examples=300)
@given(
    st.sampled_from(list(SAMPLES.values())),
    st.lists(st.tuples(st.integers(4, 300), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_garbage_raises_nothing_but_decode_errors(
    sample: tuple[Decoder, bytes], changes: list[tuple[int, int]]
) -> None:
    decode, message = sample
    changed = bytearray(message)
    for at, value in changes:
        changed[4 + at % (len(message) - 4)] = value
    outcome(decode, bytes(changed))


@given(st.binary(max_size=200))
def test_noise_raises_nothing_but_decode_errors(noise: bytes) -> None:
    for decode, message in SAMPLES.values():
        framed = message[:2] + (8 + len(noise)).to_bytes(2, "big") + message[4:8] + noise
        outcome(decode, framed)
    outcome(lambda raw: openflow.decode_header(raw), noise)
    outcome(oxm.decode_instructions, noise)
    outcome(oxm.decode_actions, noise)


def test_headers() -> None:
    assert openflow.decode_header(openflow.encode_barrier(9)) == (4, base.BARRIER_REQUEST, 8, 9)
    with pytest.raises(DecodeError) as caught:
        openflow.decode_header(b"\4\0\0\7\0\0\0\0")
    assert caught.value.cause == "of-framing"
