"""RARP: a guest's question is answered, a hypervisor's announcement, which has the same bytes, is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import World, arp, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.model import Place
from ryu_vmm.runtime import Runtime
from ryu_vmm.store import MemoryStore
from ryu_vmm.tables import Why, cookie
from ryu_vmm.wire import frames
from ryu_vmm.wire.openflow import PacketIn

RARP = frames.build_rarp_request(mac(1))


def three() -> World:
    w = World(3)
    w.network()
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    return w


def answers(w: World, nve: str = "n1", port: str = "tap-vm1", frame: bytes = RARP) -> list[bytes]:
    """The RARP replies to a request; none of the guest's frames may have its own MAC as source."""
    before = len(w.out)
    w.send(nve, port, frame)
    got = [f for n, p, f in w.out[before:] if p == port]
    assert all(f[6:12] != mac(1) for f in got)
    return [f for f in got if frames.classify(f) is frames.Kind.RARP_REPLY]


def test_a_guest_that_was_never_heard_asks_as_often_as_it_likes() -> None:
    w = three()
    for _ in range(3):
        (reply,) = answers(w)
        assert frames.parse_rarp(reply).tpa == ip("10.0.0.1") and frames.parse_rarp(reply).tha == mac(1)
    w.kill()
    w.start()
    assert len(answers(w)) == 1


@pytest.mark.parametrize(
    "said",
    [
        arp(1, 2),
        arp(1, 99),
        frames.build_garp(mac(1), ip("10.0.0.1")),
        frames.build_ns(mac(1), bytes(16), ip("2001:db8::1")),
        frames.build_ns(mac(1), ip("2001:db8::1"), ip("2001:db8::2")),
    ],
    ids=["a question", "one that nobody answers", "an announcement", "duplicate address detection", "a solicitation"],
)
@pytest.mark.parametrize("again", [False, True], ids=["running", "restarted"])
def test_a_guest_that_was_heard_does_not_ask(said: bytes, again: bool) -> None:
    w = three()
    w.send("n1", "tap-vm1", said)
    if again:
        w.kill()
        w.start()
    assert answers(w) == []
    assert len(answers(w, "n2", "tap-vm2", frames.build_rarp_request(mac(2)))) == 1


def test_what_is_forged_says_nothing_of_the_guest() -> None:
    w = three()
    w.send("n1", "tap-vm1", frames.build_garp(mac(1), ip("10.0.0.2")))
    assert len(answers(w)) == 1


@pytest.mark.parametrize("end", ["open", "redirected", "arrived", "aborted"])
def test_a_vm_that_moves_is_announced_and_does_not_ask(end: str) -> None:
    w = three()
    move = w.move("vm1", "n2")
    w.advance(1.0)
    at = "n1"
    if end in ("redirected", "arrived"):
        w.handle(ev.RedirectRequested(move.id))
        w.advance(0.1)
        at = "n2"
        w.plug("n2", "tap-vm1")
    if end == "arrived":
        w.handle(ev.ActivationReported(move.id))
        w.advance(10)
    if end == "aborted":
        w.handle(ev.AbortRequested(move.id))
    for _ in range(5):
        assert answers(w, at) == []
    w.kill()
    w.start()
    assert answers(w, at) == []


def test_a_vm_that_is_announced_elsewhere_does_not_ask() -> None:
    w = three()
    w.vm(4, "n1", attachments=(Place("n3", "tap-vm4"),))
    w.unplug("n1", "tap-vm4")
    w.plug("n3", "tap-vm4")
    asked = frames.build_rarp_request(mac(4))
    for _ in range(5):
        assert answers(w, "n3", "tap-vm4", asked) == []
    assert w.nva.state.interfaces["vm4/eth0"].location.nve == "n3"


def test_a_vm_that_is_registered_again_may_ask_again() -> None:
    w = three()
    w.send("n1", "tap-vm1", arp(1, 2))
    w.handle(ev.VmSubmitted("vm1", (replace(w.nva.state.interfaces["vm1/eth0"], ipv4=(ip("10.0.0.11"),)),)))
    assert answers(w) == []
    w.handle(ev.VmWithdrawn("vm1"))
    assert "vm1/eth0" not in w.nva.state.heard
    w.vm(1, "n1")
    assert len(answers(w)) == 1


def test_who_asks_for_another_mac_asks() -> None:
    w = three()
    w.send("n1", "tap-vm1", arp(1, 2))
    request = RARP[:32] + mac(2) + RARP[38:]
    (reply,) = answers(w, frame=request)
    assert frames.parse_rarp(reply).tpa == ip("10.0.0.2")


def test_no_flow_depends_on_who_was_heard() -> None:
    w = three()
    before = {name: w.installed(name) for name in w.boxes}
    w.send("n1", "tap-vm1", arp(1, 2))
    assert w.nva.state.heard and {name: w.installed(name) for name in w.boxes} == before
    assert w.send("n1", "tap-vm1", unicast(1, 2)) == [("n2", "tap-vm2")]


def test_questions_that_are_answered_without_a_step_are_heard() -> None:
    w, store = three(), MemoryStore()
    store.rows = dict(w.store.rows)
    run = Runtime(store)
    port = ev.PortInfo(10, "tap-vm1", True)
    run.event(ev.NveConnected(1, (port,)))
    sent: list[object] = []
    run.execute = sent.append
    question = PacketIn(1, 20, cookie(Why.RESOLVE), 10, None, None, arp(1, 2), None)
    assert run.packets(1, [question]) == [] and sent  # as an event, and recorded
    assert store.rows["heard", "vm1/eth0"] is True
    assert len(run.packets(1, [question])) == 1
    run.stop()
