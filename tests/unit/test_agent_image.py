"""A task's image, its sockets as data, and the journal: whole or refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm.agent import image, sockets, tcp
from ryu_vmm.agent.definition import TaskDefinition
from ryu_vmm.agent.faults import AgentError, BadImage
from ryu_vmm.agent.records import Journal, Leg, Record, Role, Started, Step, replace_file
from ryu_vmm.checking import check

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
PARTS = st.dictionaries(NAMES, st.binary(max_size=200), max_size=5)
MOST = 1 << 20


def task(name: str = "web") -> TaskDefinition:
    one = {"network": "blue", "mac": "02:00:00:00:00:09", "addresses": ["10.0.0.9/24", "2001:db8::9/64"]}
    return check(TaskDefinition, {"name": name, "command": ["x"], "interfaces": [one]})


@given(PARTS)
def test_an_image_is_read_as_it_was_written(parts: dict[str, bytes]) -> None:
    data = image.dumps(parts)
    assert len(data) == image.size_of(parts)
    assert image.loads(data, len(data)) == parts


@given(PARTS, st.data())
def test_an_image_with_any_bit_changed_is_refused(parts: dict[str, bytes], data: st.DataObject) -> None:
    whole = bytearray(image.dumps(parts))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BadImage):
        image.loads(bytes(whole), MOST)


@given(PARTS, st.data())
def test_an_image_that_is_cut_off_or_goes_on_is_refused(parts: dict[str, bytes], data: st.DataObject) -> None:
    whole = image.dumps(parts)
    with pytest.raises(BadImage):
        image.loads(whole[: data.draw(st.integers(0, len(whole) - 1))], MOST)
    with pytest.raises(BadImage):
        image.loads(whole + b"x", MOST)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(BadImage):
        image.loads(data, MOST)
    with pytest.raises(BadImage):
        image.loads(image.MAGIC + data, MOST)


def test_an_image_larger_than_told_is_refused_before_it_is_read() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1) -> bytes:
            self.taken += size
            return b"\1" * size

    data = image.dumps({"a": b"x" * 1000})
    with pytest.raises(BadImage, match="larger than 500"):
        image.loads(data, 500)
    source = Endless()
    with pytest.raises(BadImage):
        image.read(source, MOST)
    assert source.taken < MOST


def test_an_image_has_no_part_twice_and_no_nameless_one() -> None:
    with pytest.raises(ValueError):
        image.dumps({"": b""})
    with pytest.raises(ValueError):
        image.dumps({"x" * 256: b""})


def connection(**changes: object) -> tcp.Connection:
    values = {
        "family": 2, "local": ("10.0.0.9", 80), "remote": ("10.0.0.2", 4000), "state": 1, "send_seq": 0xFFFFFFF0,
        "receive_seq": 7, "mss": 1398, "options": 7, "scales": 9 | 9 << 16, "timestamp": 5, "window": (1, 2, 3, 4, 5),
        "buffers": (87380, 131072), "sent": b"sent", "unsent": b"not sent", "unread": b"unread",
    }  # fmt: skip
    return tcp.Connection(**{**values, **changes})  # type: ignore[arg-type]


def carried() -> list[sockets.Carried]:
    return [
        sockets.Carried("listen", "listen", 2, ("0.0.0.0", 80), False, [(1, 2, 1)], backlog=128),
        sockets.Carried("one", "tcp", 2, ("10.0.0.9", 80), True, [], connection=connection()),
        sockets.Carried("echo", "udp", 10, ("::", 53, 0, 0), False, [], waiting=[("2001:db8::2", 9, b"a"),
                                                                               ("2001:db8::3", 9, b"")]),
        sockets.Carried("listen", "tcp", 2, ("10.0.0.9", 80), False, [], accepted=True,
                        connection=connection(remote=("10.0.0.3", 1), sent=b"", unsent=b"", unread=b"")),
    ]  # fmt: skip


def test_sockets_are_read_as_they_were_written() -> None:
    document, blob = sockets.encode(carried())
    found = sockets.decode(document, blob)
    assert [one.connection for one in found] == [one.connection for one in carried()]
    assert [one.waiting for one in found] == [one.waiting for one in carried()]
    assert [(one.key, one.kind, one.accepted, one.backlog) for one in found] == [
        (one.key, one.kind, one.accepted, one.backlog) for one in carried()
    ]


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda s: st.lists(s) | st.dictionaries(
    st.sampled_from(["key", "kind", "connection", "waiting", "local"]), s), max_leaves=8), st.binary(max_size=20))
def test_sockets_that_are_none_are_refused(document: object, blob: bytes) -> None:
    if document == [] and blob == b"":
        assert sockets.decode(b"[]", b"") == []
        return
    with pytest.raises(BadImage):
        sockets.decode(json.dumps(document if document != [] else {}).encode(), blob)


def test_queues_must_be_as_long_as_their_sockets_say() -> None:
    document, blob = sockets.encode(carried())
    for wrong in (blob[:-1], blob + b"x", b""):
        with pytest.raises(BadImage):
            sockets.decode(document, wrong)
    rows = json.loads(document)
    rows[1]["connection"]["sent"] = -1
    with pytest.raises(BadImage):
        sockets.decode(json.dumps(rows).encode(), blob)


def test_what_is_kept_where_addresses_change() -> None:
    found, dropped = sockets.kept(carried(), False, {"10.0.0.9": "10.0.1.7"})
    assert [one.key for one in found] == ["listen", "echo"]
    assert dropped == ["one", "listen"]
    found, dropped = sockets.kept(carried(), True, {})
    assert [one.key for one in found] == ["listen", "echo"]
    bound = sockets.Carried("l", "listen", 10, ("::ffff:10.0.0.9", 80, 0, 0), False, [])
    assert sockets.kept([bound], False, {"10.0.0.9": "10.0.1.7"})[0][0].local == ("::ffff:10.0.1.7", 80, 0, 0)


# --- the journal ------------------------------------------------------------------------------------------------------
def test_a_journal_gives_back_what_was_put(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    leg = Leg(move=3, peer="nve2", step=Step.SEND, policy="migrate", changes={"10.0.0.9": "10.0.1.7"})
    record = Record(definition=task(), role=Role.LEAVING, leg=leg, process=Started(pid=7, started=9, boot="b"))
    journal.put(record)
    journal.put(Record(definition=task("other"), role=Role.HOME))
    assert Journal(tmp_path).load()["web"] == record
    journal.image("web").write_bytes(b"x")
    journal.drop("web")
    assert list(Journal(tmp_path).load()) == ["other"]
    assert not journal.image("web").exists()
    journal.drop("web")


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    replace_file(path, b"old")

    def crash(*_: object) -> None:
        raise OSError("power")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", crash)
        with pytest.raises(OSError, match="power"):
            replace_file(path, b"new and longer")
    assert path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"definition": {}, "role": "home"}', b"\xff"])
def test_a_record_that_cannot_be_read_is_not_guessed(tmp_path: Path, damage: bytes) -> None:
    journal = Journal(tmp_path)
    journal.put(Record(definition=task(), role=Role.HOME))
    (tmp_path / "tasks" / "web.json").write_bytes(damage)
    with pytest.raises(AgentError, match="cannot be read"):
        journal.load()


def test_a_process_of_another_boot_is_not_ours() -> None:
    assert Started(pid=1, started=0, boot="a").process("b") is None
