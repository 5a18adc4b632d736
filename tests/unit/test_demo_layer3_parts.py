"""The story of layer 3, the parts that need no switches: command line, claims, frames, clients that follow a name."""

from __future__ import annotations

import io
import json
import socket
import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from demonstration import machine, options
from demonstration.layer3 import cast, frames
from demonstration.layer3.claims import Claims
from demonstration.narrator import Narrator
from rich.console import Console

from topologies.specs import GATEWAY_MAC


# --- the command line -------------------------------------------------------------------------------------------------
def test_it_needs_ipv6_below_and_takes_both_families_unless_told_otherwise() -> None:
    assert options.parse(["--layer3"]).underlay == "both"
    assert options.parse(["--layer3", "--underlay", "ipv6"]).underlay == "ipv6"
    assert options.parse([]).underlay == "ipv4"


@pytest.mark.parametrize(("words", "why"), [
    (["--layer3", "--keep"], "it does not go with --keep"),
    (["--layer3", "--stop"], "it does not go with"),
    (["--layer3", "--move", "vm1", "nve2"], "it does not go with"),
    (["--layer3", "--underlay", "ipv4"], "needs IPv6 in the underlay"),
    (["--underlay", "both"], "goes with --layer3"),
])
def test_what_does_not_go_together_is_refused(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        options.parse(words)
    assert exit_.value.code == 2
    assert why in capsys.readouterr().err


def test_it_says_what_it_needs_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(machine.shutil, "which", lambda tool: None if tool == "named" else f"/usr/bin/{tool}")
    machine.check()
    with pytest.raises(machine.Unfit, match=r"missing commands: named .* bind9"):
        machine.check(machine.LAYER3)


# --- what is claimed --------------------------------------------------------------------------------------------------
def test_all_claims_have_to_hold() -> None:
    claims = Claims()
    assert claims.verdict() == "FAILED: nothing was shown."
    assert claims.document()["ok"] is False
    assert claims.none("one", "packets lost", 0)
    claims.summary = "much was shown; "
    assert claims.verdict() == "PASSED: much was shown; all 1 claims held."
    assert claims.document()["ok"] is True
    assert not claims.want("two", "it has settled", False, "aborted")
    assert not claims.none("two", "packets lost", 1200)
    assert claims.verdict() == "FAILED: not so: it has settled (aborted); not so: packets lost (1,200)."
    document = json.loads(json.dumps(claims.document()))
    assert document["ok"] is False
    assert [one["held"] for one in document["claims"]] == [True, False, False]


# --- frames -----------------------------------------------------------------------------------------------------------
MACS = bytes.fromhex("020000000002020000000001")
PAYLOAD = b"what the sender wrote"


def udp(source: int, target: int, data: bytes) -> bytes:
    return struct.pack("!HHHH", source, target, 8 + len(data), 0) + data


def ipv4(protocol: int, data: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, 64, protocol, 0)
    return head + socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + data


def ipv6(protocol: int, data: bytes) -> bytes:
    here, there = (socket.inet_pton(socket.AF_INET6, text) for text in ("2001:db8::1", "2001:db8::2"))
    return struct.pack("!IHBB", 6 << 28, len(data), protocol, 63) + here + there + data


OWN4, OWN6 = ipv4(17, udp(6001, 6001, PAYLOAD)), ipv6(17, udp(6001, 6001, PAYLOAD))
VXLAN = b"\x08\0\0\0\0\0\x64\0"


@pytest.mark.parametrize(("frame", "names"), [
    (MACS + b"\x08\0" + ipv4(17, udp(40000, 4789, VXLAN + MACS + b"\x86\xdd" + OWN6)),
     ["Ethernet", "IPv4", "UDP", "VXLAN", "Ethernet", "IPv6*", "UDP*", "payload*"]),
    (MACS + b"\x86\xdd" + ipv6(17, udp(40000, 4789, VXLAN + MACS + b"\x08\0" + OWN4)),
     ["Ethernet", "IPv6", "UDP", "VXLAN", "Ethernet", "IPv4*", "UDP*", "payload*"]),
    (MACS + b"\x08\0" + ipv4(47, b"\x20\0\x86\xdd\0\0\0\x64" + OWN6),
     ["Ethernet", "IPv4", "GRE", "IPv6*", "UDP*", "payload*"]),
    (MACS + b"\x86\xdd" + OWN6, ["Ethernet", "IPv6*", "UDP*", "payload*"]),
    (MACS + b"\x08\0" + OWN4, ["Ethernet", "IPv4*", "UDP*", "payload*"]),
])
def test_a_frame_is_taken_apart_without_losing_a_byte(frame: bytes, names: list[str]) -> None:
    found = frames.layers(frame)
    assert [one.name + "*" * one.inner for one in found] == names
    assert b"".join(one.data for one in found) == frame
    assert found[-1].data == PAYLOAD
    said = [words for one in found for words in one.meaning]
    assert said[0] == "02:00:00:00:00:01 to 02:00:00:00:00:02"
    assert said.count("network 100") == (0 if len(names) == 4 else 1)


@pytest.mark.parametrize("frame", [
    MACS + b"\x08\0" + ipv4(6, bytes(20)), MACS + b"\x08\x06" + bytes(28), MACS + b"\x08\0" + OWN4[:12],
])
def test_what_is_no_datagram_is_refused(frame: bytes) -> None:
    with pytest.raises(ValueError):
        frames.layers(frame)


# --- the stage --------------------------------------------------------------------------------------------------------
def test_the_cast_fits_on_the_stage() -> None:
    topo = cast.topology("both")
    everybody = [*cast.guests(), *cast.tasks()]
    for attribute in ("name", "mac", "ip", "ip6"):
        assert len({getattr(one, attribute) for one in everybody}) == len(everybody), attribute
    assert {one.nve for one in everybody} == set(cast.NVES)
    assert topo.vn("apps").reaches(topo.vn("mobile"))
    for one in everybody:
        inside = (one.ip6 or "").startswith(cast.SIR)
        assert inside == (one.vn == "mobile"), one.name
    interface = cast.interface(cast.tasks()[1])
    assert interface["dns"] == "web.example.org"
    assert interface["mac"] != GATEWAY_MAC


# --- words ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("width", [40, 80, 100])
def test_in_a_window_words_keep_to_their_column(width: int) -> None:
    narrator = Narrator()
    written = io.StringIO()
    narrator.console = Console(file=written, width=width, force_terminal=True, color_system=None, highlight=False)
    narrator.detail("gateway", "the same at every NVE, and every guest's only neighbor " * 3)
    narrator.add("more about that " * 20)
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= max(width, 22 + 30)
    assert lines[0].startswith(" " * 10 + "gateway     the same")
    assert lines[1].startswith(" " * 22) and lines[1][22] != " "
    assert lines[-1].startswith(" " * 10) and lines[-1][10] != " "


def test_elsewhere_a_line_is_a_line() -> None:
    narrator = Narrator()
    written = io.StringIO()
    narrator.console = Console(file=written, width=110, highlight=False)
    narrator.say("word " * 60)
    assert len(written.getvalue().splitlines()) == 1
