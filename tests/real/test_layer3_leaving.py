"""What becomes of packets for what a task has left: its address where that changed, its locator where ILA moved it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from proof import layer3, raw
from proof.errors import UNREACHABLE, Sender, Told, told
from proof.lab import Lab
from proof.raw import Card

from topologies import VM, netns
from topologies.rundir import wait_until

ANSWERS = ("drop", "unreachable", "forward")  # of task1 and mob1, task2 and mob2, task3 and mob3
SECONDS = 10  # that a task's old address is answered for: longer than anything here takes until it has been asked
ASKING = 5.0  # seconds in which everything is as the policy says: Open vSwitch forwards the old way for a moment
_PORT = 6002
Seen = TypeVar("Seen")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    leave = {
        f"{kind}{n}": {"answer": answer, "seconds": SECONDS}
        for n, answer in enumerate(ANSWERS, 1) for kind in ("task", "mob")
    }
    with layer3.laboratory("ipv6", tasks=3, leave=leave, quiet_time=1.0, ping=False) as made:
        for tasks, clients in (("task", "cli"), ("mob", "far")):
            made.net.await_pings([made.vm(f"{kind}{n}") for kind in (tasks, clients) for n in (1, 2, 3)])
        yield made


def numbered(kind: str, answer: str) -> tuple[str, int]:
    """The guest of a kind that such an answer is given for, and its number."""
    number = 1 + ANSWERS.index(answer)
    return f"{kind}{number}", number


def destination(frame: bytes) -> str:
    """The address that a packet is for; nothing where it is none."""
    if raw.kind_of(frame) == raw.IPV6:
        return socket.inet_ntop(socket.AF_INET6, frame[38:54])
    return socket.inet_ntop(socket.AF_INET, frame[30:34]) if raw.kind_of(frame) == raw.IPV4 else ""


def heard(lab: Lab, vm: VM, old: tuple[str, str]) -> tuple[set[str], dict[tuple[str, str], Told | None]]:
    """Datagrams from two edges to old addresses: which of these reach the task, and what their senders are told."""
    with contextlib.ExitStack() as stack:
        card = stack.enter_context(Card(vm))
        senders = {
            (client, address): stack.enter_context(Sender(lab.vm(client), address))
            for client in ("cli1", "cli3") for address in old
        }
        for sender in senders.values():
            sender.send()
        arrived = {destination(frame) for frame in card.during(0.5)}
        return arrived.intersection(old), {who: sender.told(0.05) for who, sender in senders.items()}


def until_kept(look: Callable[[], Seen], kept: Callable[[Seen], bool]) -> Seen:
    """What is seen when a policy is kept; if it never is, what is seen last."""
    deadline = time.monotonic() + ASKING
    while not kept(seen := look()) and time.monotonic() < deadline:
        pass
    return seen


def test_addresses_that_tasks_have_left(lab: Lab) -> None:
    """The new ones are reached from everywhere; old ones are answered as the task's policy says, for so long."""
    gone = []
    for answer in ANSWERS:
        name, number = numbered("task", answer)
        vm, old = lab.vm(name), (f"10.1.1.{number}", f"2001:db8:1:1::{number}")
        new = (f"10.1.2.{number}", f"2001:db8:1:2::{number}")
        report = vm.move("nve2", announce="none", address="change")
        assert report.addresses == list(zip(old, new, strict=True))
        assert (vm.spec.ip, vm.spec.ip6) == new
        lab.await_state(report.move, "draining", "settled")
        wanted = set(old) if answer == "forward" else set()
        arrived, told_ = until_kept(
            lambda vm=vm, old=old: heard(lab, vm, old),
            lambda seen, wanted=wanted, answer=answer: seen[0] == wanted and all(
                (said is not None) == (answer == "unreachable") for said in seen[1].values()
            ),
        )
        assert arrived == wanted, answer
        for (client, address), said in told_.items():
            assert (said is not None) == (answer == "unreachable"), (answer, client, address)
            if said is not None:
                six = ":" in address
                assert (said.family, said.type) == UNREACHABLE[six]
                assert said.router == ("fe80::1" if six else "169.254.1.1")
        lab.net.await_pings([vm, *(lab.vm(f"cli{n}") for n in (1, 2, 3))])
        lab.await_closed(report.move)
        gone += old

    def nobodys() -> bool:
        return all(told(lab.vm("cli3"), address, seconds=0.2) is not None for address in gone)

    wait_until(nobodys, SECONDS + 15, "the old addresses to be nobody's", 0.2)
    assert lab.verify() == []


def test_addresses_are_allotted_again_when_their_time_is_over_and_never_twice(lab: Lab) -> None:
    """After the tests above: task1 gets its old ones back, and cli1, whose like at nve2 is cli2's, the first free."""
    back = lab.vm("task1").move("nve1", announce="none", settle=20.0, address="change")
    assert back.addresses == [("10.1.2.1", "10.1.1.1"), ("2001:db8:1:2::1", "2001:db8:1:1::1")]
    lab.await_closed(back.move)
    report = lab.vm("cli1").move("nve2", announce="none", settle=20.0, address="change")
    had = {vm.spec.ip for vm in lab.net.vms if vm.vn.name == "tasks" and vm is not lab.vm("cli1")}
    [(old, new), (_, new6)] = report.addresses
    assert old == "10.1.1.100"
    assert new.startswith("10.1.2.")
    assert new6.startswith("2001:db8:1:2::")
    assert new not in had | {"10.1.2.1"}  # what task1 has just left is still its own
    lab.await_closed(report.move)
    lab.net.await_pings([lab.vm("cli1"), lab.vm("cli2"), lab.vm("task1")])


def under_locator(lab: Lab, number: int, source: str = "far3") -> bytes:
    """A datagram from a task to a mobile one under the locator of nve1, as it travels on the underlay."""
    nve = lab.net.nve("nve1")
    [link] = json.loads(netns.run(["ip", "-n", nve.namespace, "-json", "link", "show", "br-ext"]))
    sender = lab.vm(source).spec.ip6
    assert sender
    return raw.udp6(raw.mac(link["address"]), raw.mac("02:00:00:00:00:99"), raw.ip(sender),
                    raw.ip(f"fd00:1:0:1::1:{number}"), b"late" * 10, _PORT)


def unreachable(frame: bytes) -> bool:
    """Of frames: whether they are ICMPv6 errors of that type, and not the task's own word of a port (code 4)."""
    return raw.kind_of(frame) == raw.IPV6 and (frame[20], frame[54]) == (58, 1) and frame[55] != 4


def late(lab: Lab, vm: VM, number: int) -> tuple[bytes | None, bytes | None]:
    """A datagram under the locator that a task has left: how it reaches the task, and what its sender is told."""
    with netns.entered(lab.net.nve("nve3").namespace):
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with link, Card(vm) as task, Card(lab.vm("far3")) as sender:
        link.bind(("und0", 0))
        link.send(under_locator(lab, number))
        return task.await_frame(lambda frame: b"latelate" in frame, 0.5), sender.await_frame(unreachable, 0.3)


def test_locators_that_tasks_have_left(lab: Lab) -> None:
    """What still comes under the old locator once the move has settled is answered as the task's policy says."""
    far = lab.vm("far3")
    for answer in ANSWERS:
        name, number = numbered("mob", answer)
        vm = lab.vm(name)
        own = raw.ip(vm.spec.ip6 or "")
        report = vm.move("nve2", announce="none", settle=20.0)
        lab.await_closed(report.move)
        arrived, said = until_kept(
            lambda vm=vm, number=number: late(lab, vm, number),
            lambda seen, answer=answer: (seen[0] is not None, seen[1] is not None)
            == (answer == "forward", answer == "unreachable"),
        )
        assert (arrived is not None) == (answer == "forward"), answer
        assert (said is not None) == (answer == "unreachable"), answer
        if arrived is not None:
            assert arrived[38:54] == own
        if said is not None:
            assert said[38:54] == raw.ip(far.spec.ip6 or "")
            assert said[62 + 24 : 62 + 40] == own  # what it quotes is what the sender had sent
        lab.net.await_pings([vm, far, lab.vm("far1")])
        assert lab.verify(moving=True) == []
    # forwarding sends back where it came from, and has an end like any redirect
    wait_until(lambda: lab.verify() == [], SECONDS + 15, "nothing to go from tunnel to tunnel", 0.2)
