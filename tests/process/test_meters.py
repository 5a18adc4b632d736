"""Which meters a connection makes and removes, as flows that use them come and go."""

from __future__ import annotations

import struct

import ryu.base.app_manager  # noqa: F401 - before anything else of Ryu's, which imports itself in a circle

from ryu_vmm.flows import Flow, FlowChange, Meter, Output, match
from ryu_vmm.southbound.meters import Meters
from ryu_vmm.wire import base
from ryu_vmm.wire import meters as wire

Said = list[tuple[str, int]]
_COMMANDS = {0: "add", 1: "again", 2: "delete"}


def flow(number: int, meter: int | None) -> Flow:
    counted = () if meter is None else (Meter(meter),)
    return Flow(40, 120, match(in_port=number), (*counted, Output(1)))


def said(buf: bytes) -> Said:
    """The meter changes in some bytes."""
    found, position = [], 0
    while position < len(buf):
        (length,) = struct.unpack_from("!H", buf, position + 2)
        command, _, meter = struct.unpack_from("!HHI", buf, position + 8)
        found.append((_COMMANDS[command], meter))
        position += length
    return found


def change(meters: Meters, *changes: tuple[str, int, int | None]) -> tuple[Said, Said]:
    before, after = meters.around([FlowChange(op, flow(number, meter)) for op, number, meter in changes], 1)
    return said(before), said(after)


def test_a_meter_lives_as_long_as_any_flow_that_uses_it() -> None:
    meters = Meters()
    assert change(meters, ("add", 1, 63), ("add", 2, 63)) == ([("add", 63)], [])
    assert change(meters, ("add", 3, 63), ("delete", 1, 63)) == ([], [])
    assert change(meters, ("delete", 2, 63)) == ([], [])
    assert change(meters, ("delete", 3, 63)) == ([], [("delete", 63)])
    assert change(meters, ("add", 1, 63)) == ([("add", 63)], [])


def test_a_flow_that_changes_its_meter_lets_the_old_one_go() -> None:
    meters = Meters()
    change(meters, ("add", 1, 5))
    assert change(meters, ("add", 1, 5)) == ([], [])
    assert change(meters, ("add", 1, 6)) == ([("add", 6)], [("delete", 5)])
    assert change(meters, ("add", 1, None)) == ([], [("delete", 6)])
    assert change(meters, ("delete", 1, None)) == ([], [])


def test_a_meter_that_passes_from_flow_to_flow_at_once_stays() -> None:
    meters = Meters()
    change(meters, ("add", 1, 5))
    assert change(meters, ("add", 1, 6), ("add", 2, 5)) == ([("add", 6)], [])
    assert change(meters, ("delete", 2, 5)) == ([], [("delete", 5)])


def test_what_was_read_back_is_in_use() -> None:
    meters = Meters()
    meters._there[9] = 0
    meters.adopt([flow(1, 5), flow(1, 5), flow(2, None)])
    assert change(meters, ("add", 1, 5)) == ([], [])
    assert change(meters, ("add", 3, 9)) == ([("again", 9)], [])
    assert change(meters, ("delete", 1, 5)) == ([], [("delete", 5)])


def test_a_meter_limits_as_it_is_to_and_is_corrected_if_it_did_otherwise() -> None:
    """One that an earlier connection made with another rate, options having changed since."""
    meters = Meters(lambda meter: 20 if meter >= 100 else 0)
    before, _ = meters.around([FlowChange("add", flow(1, 100)), FlowChange("add", flow(2, 7))], 1)
    rates = {100: 20, 7: 0}
    config = struct.pack("!HH4x", 10, 0)
    for position in range(0, len(before), 32):
        assert before[position + 1] == 29
        config += struct.pack("!HH", 24, 14) + before[position + 12 : position + 32]
    assert wire.decode_meter_config(b"\4\x13" + struct.pack("!HI", 8 + len(config), 1) + config) == (rates, False)
    again = Meters(lambda meter: 30 if meter >= 100 else 0)
    again._there.update(rates)
    again.adopt([flow(1, 100), flow(2, 7)])
    assert said(again.around([], 1)[0]) == [("again", 100)]
    assert said(again.around([], 1)[0]) == []


def test_only_what_counts_is_read_where_that_is_little() -> None:
    meters = Meters(lambda meter: 20 if meter >= 100 else 0)
    for n in range(100):
        change(meters, ("add", n + 10, 100 + n))
    change(meters, ("add", 1, 7), ("add", 2, 8))
    asked = meters.ask(5, "token")
    wanted = [struct.unpack_from("!I", asked, position + 16)[0] for position in range(0, len(asked), 24)]
    assert wanted == [7, 8]
    for meter in wanted:
        assert not meters.complete
        body = struct.pack("!HH4xIH6xIQQII", base.MP_METER, 0, meter, 40, 1, 70, 8000, 1, 0)
        assert meters.answered(base.message(base.MULTIPART_REPLY, 5, body), 5)
    assert meters.complete == {5: ("token", {7: (70, 8000), 8: (70, 8000)})}
