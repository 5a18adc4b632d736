"""The queue of what waits to be sent: order, sizes, and pieces that are never too large."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm.flows import Flow, FlowChange, Output
from ryu_vmm.wire import outbox
from ryu_vmm.wire.openflow import encode_flow_mods
from ryu_vmm.wire.outbox import Outbox

IMPOSSIBLE = FlowChange("add", Flow(0, 0, (), (Output(1),) * 5000))


def changes(count: int) -> tuple[FlowChange, ...]:
    return tuple(FlowChange("add", Flow(0, n % 65536, ())) for n in range(count))


def never(change: FlowChange, error: ValueError) -> None:
    raise AssertionError((change, error))


def drain(box: Outbox) -> bytes:
    found = b""
    while data := box.take():
        found += data
    return found


def test_nothing_waits() -> None:
    box = Outbox()
    assert not box
    assert box.take() == b""
    box.put_changes((), 1, never)
    assert not box


entries = st.lists(st.binary(min_size=1, max_size=40) | st.integers(0, 600), max_size=8)


@given(entries, st.lists(st.integers(0, 100), max_size=20))
def test_order_and_size_hold_whatever_is_written_at_a_time(given_entries: list[bytes | int], cuts: list[int]) -> None:
    box, expected = Outbox(), b""
    for xid, entry in enumerate(given_entries):
        if isinstance(entry, bytes):
            box.put(entry)
            expected += entry
        else:
            box.put_changes(changes(entry), xid, never)
            expected += encode_flow_mods(changes(entry), xid)
    found = b""
    for cut in cuts:
        data = box.take()
        found += data[:cut]
        if data[cut:]:
            box.put_back(data[cut:])
        assert box.size >= len(data[cut:])
    assert found + drain(box) == expected
    assert box.size == 0
    assert not box


def test_flow_changes_are_encoded_a_piece_at_a_time() -> None:
    box = Outbox()
    box.put(b"before")
    box.put_changes(changes(3 * outbox.ENCODE_AT_ONCE + 1), 9, never)
    box.put(b"after")
    assert box.size == len(b"beforeafter")
    assert box.take() == b"before"
    pieces = [box.take() for _ in range(4)]
    each = len(encode_flow_mods(changes(1), 9))
    assert [len(piece) for piece in pieces] == [*[each * outbox.ENCODE_AT_ONCE] * 3, each + len(b"after")]
    assert box.take() == b""


def test_bytes_are_joined_up_to_a_limit() -> None:
    box = Outbox()
    for _ in range(20):
        box.put(bytes(outbox.WRITE_SIZE // 4))
    assert len(box.take()) == outbox.WRITE_SIZE
    assert box.size == 16 * outbox.WRITE_SIZE // 4


def test_what_openflow_has_no_room_for_is_left_out() -> None:
    box = Outbox()
    refused: list[FlowChange] = []
    box.put_changes((*changes(2), IMPOSSIBLE, *changes(1)), 1, lambda change, error: refused.append(change))
    box.put(b"after")
    assert drain(box) == encode_flow_mods(changes(2), 1) + encode_flow_mods(changes(1), 4) + b"after"
    assert refused == [IMPOSSIBLE]


def test_a_piece_of_nothing_possible_does_not_look_like_the_end() -> None:
    box = Outbox()
    refused: list[FlowChange] = []
    many = (FlowChange("replace", Flow(0, 0, ())),) * (1100 * outbox.ENCODE_AT_ONCE)
    box.put_changes(many, 1, lambda change, error: refused.append(change))
    box.put(b"after")
    assert box.take() == b"after"
    assert len(refused) == len(many)


def test_clearing_forgets_all() -> None:
    box = Outbox()
    box.put(b"x")
    box.put_changes(changes(5), 1, never)
    box.clear()
    assert (bool(box), box.size, box.take()) == (False, 0, b"")
