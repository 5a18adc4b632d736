"""What becomes of packets for what a task has left: its address where that changed, its locator where ILA moved it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest
from proof import layer3, raw
from proof.errors import UNREACHABLE, told
from proof.lab import Lab
from proof.raw import Card

from topologies import netns
from topologies.rundir import wait_until

ANSWERS = ("drop", "unreachable", "forward")  # of task1 and mob1, task2 and mob2, task3 and mob3
SECONDS = 6
_PORT = 6002


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    leave = {
        f"{kind}{n}": {"answer": answer, "seconds": SECONDS}
        for n, answer in enumerate(ANSWERS, 1) for kind in ("task", "mob")
    }
    with layer3.laboratory("ipv6", tasks=3, leave=leave, quiet_time=1.0) as made:
        yield made


def left(lab: Lab, name: str) -> None:
    """Move a task to nve2, its addresses changed."""
    vm = lab.vm(name)
    number = name[-1]
    report = vm.move("nve2", announce="none", settle=20.0, address="change")
    assert report.addresses == [
        (f"10.1.1.{number}", f"10.1.2.{number}"), (f"2001:db8:1:1::{number}", f"2001:db8:1:2::{number}"),
    ]
    assert (vm.spec.ip, vm.spec.ip6) == (f"10.1.2.{number}", f"2001:db8:1:2::{number}")
    lab.await_closed(report.move)


def carries(address: str) -> Callable[[bytes], bool]:
    """Of frames: whether they are for an address."""
    wanted, at = raw.ip(address), 38 if ":" in address else 30
    return lambda frame: frame[at : at + len(wanted)] == wanted


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_address_that_a_task_has_left(lab: Lab, answer: str) -> None:
    """The new one is reached from everywhere; the old one is answered as the task's policy says, for so long."""
    number = 1 + ANSWERS.index(answer)
    vm = lab.vm(f"task{number}")
    old = (f"10.1.1.{number}", f"2001:db8:1:1::{number}")
    left(lab, vm.name)
    assert lab.net.ping([vm, *(lab.vm(f"cli{n}") for n in (1, 2, 3))]) == 0.0
    for client in (lab.vm("cli1"), lab.vm("cli3")):
        for address in old:
            with Card(vm) as card:
                heard = told(client, address, seconds=0.4)
                frame = card.await_frame(carries(address), 0.2)
            assert (frame is not None) == (answer == "forward"), address
            assert (heard is not None) == (answer == "unreachable"), address
            if heard is not None:
                six = ":" in address
                assert (heard.family, heard.type) == UNREACHABLE[six]
                assert heard.router == ("fe80::1" if six else "169.254.1.1")

    def nobodys() -> bool:
        return all(told(lab.vm("cli3"), address, seconds=0.3) is not None for address in old)

    wait_until(nobodys, SECONDS + 10, f"{answer}: the old addresses to be nobody's", 0.2)
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
    assert lab.net.ping([lab.vm("cli1"), lab.vm("cli2"), lab.vm("task1")]) == 0.0


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


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_locator_that_a_task_has_left(lab: Lab, answer: str) -> None:
    """What still comes under the old locator once the move has settled is answered as the task's policy says."""
    number = 1 + ANSWERS.index(answer)
    vm, far = lab.vm(f"mob{number}"), lab.vm("far3")
    own = raw.ip(vm.spec.ip6 or "")
    report = vm.move("nve2", announce="none", settle=20.0)
    lab.await_closed(report.move)
    with netns.entered(lab.net.nve("nve3").namespace):
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with link, Card(vm) as task, Card(far) as sender:
        link.bind(("und0", 0))
        link.send(under_locator(lab, number))
        arrived = task.await_frame(lambda frame: b"latelate" in frame, 1.0)
        said = sender.await_frame(unreachable, 0.5)
    assert (arrived is not None) == (answer == "forward")
    assert (said is not None) == (answer == "unreachable")
    if arrived is not None:
        assert arrived[38:54] == own
    if said is not None:
        assert said[38:54] == raw.ip(far.spec.ip6 or "")
        assert said[62 + 24 : 62 + 40] == own  # what it quotes is what the sender had sent
    assert lab.net.ping([vm, far, lab.vm("far1")]) == 0.0
    assert lab.verify(moving=True) == []
    # forwarding sends back where it came from, and has an end like any redirect
    wait_until(lambda: lab.verify() == [], SECONDS + 10, "nothing to go from tunnel to tunnel", 0.2)
