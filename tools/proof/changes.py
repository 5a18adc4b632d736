"""Tasks whose addresses change: how soon their names say so, and what becomes of packets for the old address."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from topologies import VM, netns
from topologies.nameserver import NameServer
from topologies.namewatch import Watch
from topologies.rest import vm_body
from topologies.rundir import wait_until

from . import layer3, raw
from .errors import PORT, Sender
from .lab import Lab
from .raw import Card

ANSWERS = ("drop", "unreachable", "forward")
TASK, CLIENTS = "task1", ("cli1", "cli3")
#: Bar for a name, in seconds from activation.
SOON = 0.1
NAME = f"{TASK}.example.org"
SECONDS = 3  # that an old address is dealt with
_DATAGRAMS = 20  # to an old address, from each client
_BURST = 4000  # as fast as they go


@dataclass(frozen=True)
class Changed:
    """One move with a change of address, and what came of it.

    named: seconds from activation until the name server gave the new addresses and no others. By old address: how many
    of ``sent`` datagrams were forwarded, or answered by which error. ``limited``: errors sent for a burst of _BURST.
    ``over``: whether the old addresses were nobody's after their time. ``reached``: whether every client reached the
    new addresses at once.
    """

    underlay: str
    answer: str
    source: str
    destination: str
    named: float
    sent: int
    forwarded: dict[str, int] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    limited: int = 0
    over: bool = False
    reached: bool = False
    wrong: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.answer} over {self.underlay}, {self.source} to {self.destination}"

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        found = list(self.wrong)
        if self.named > SOON:
            found.append(f"the name was behind by {self.named * 1e3:.0f} ms")
        for address in self.forwarded:
            wanted = (self.sent if self.answer == "forward" else 0, self.sent if self.answer == "unreachable" else 0)
            if (self.forwarded[address], self.told[address]) != wanted:
                got = f"{self.forwarded[address]} forwarded, {self.told[address]} answered"
                found.append(f"of {self.sent} datagrams to {address}: {got}")
        if not self.over:
            found.append("the old addresses were somebody's still after their time")
        if not self.reached:
            found.append("the new addresses were not reached at once")
        if self.answer == "unreachable" and not 0 < self.limited < _BURST:
            found.append(f"{self.limited} errors for {_BURST} datagrams at once")
        return [f"{self.name}: {words}" for words in found]


@contextmanager
def laboratory(underlay: str) -> Iterator[tuple[Lab, NameServer]]:
    """An overlay with tasks and a name server that the NVA may update."""
    with NameServer() as server:
        options = {"dns_servers": server.address, "dns_zones": "example.org", "dns_key_file": server.key_file}
        with layer3.laboratory(underlay, quiet_time=1.0, **options) as lab:
            vm = lab.vm(TASK)
            vm.spec = replace(vm.spec, dns=NAME)
            _register(lab, "drop")
            server.wait_for(NAME, *_own(vm))
            yield lab, server


def _own(vm: VM) -> tuple[str, str]:
    assert vm.spec.ip and vm.spec.ip6
    return vm.spec.ip, vm.spec.ip6


def _register(lab: Lab, answer: str) -> None:
    vm = lab.vm(TASK)
    body = vm_body(vm.spec, nve=vm.nve.name)
    lab.nva.rest.call("PUT", f"/vms/{TASK}", {**body, "leave": {"answer": answer, "seconds": SECONDS}})


def one(lab: Lab, server: NameServer, answer: str) -> Changed:
    """One move to the next NVE, to addresses of its subnet."""
    vm, clients = lab.vm(TASK), [lab.vm(name) for name in CLIENTS]
    _register(lab, answer)
    old = _own(vm)
    with Watch(server, NAME) as watch:
        report = vm.move(lab.next_nve(vm), announce="none", address="change")
        assert report.move is not None
        at = next(s["at"] for s in lab.move(report.move)["history"] if s["state"] == "steering")
        new = tuple(address for _, address in report.addresses)
        named = watch.changed_to(*new) - at
    reached = lab.net.ping([vm, *clients]) == 0.0
    forwarded, told = {}, {}
    for address in old:
        forwarded[address], told[address] = _probe(vm, clients, address)
    limited = _burst(clients[0], old[0]) if answer == "unreachable" else 0

    def nobodys() -> bool:
        return all(_probe(vm, clients[-1:], address, 1) == (0, 1) for address in old)

    try:
        over = bool(wait_until(nobodys, SECONDS + 10, "the old addresses to be nobody's", 0.2))
    except Exception:  # whatever it was, it is told as a fault of this move
        over = False
    lab.await_closed(report.move)
    return Changed(
        lab.underlay, answer, report.source, report.destination, named, _DATAGRAMS * len(clients), forwarded, told,
        limited, over, reached, lab.verify(),
    )


def _probe(vm: VM, clients: list[VM], address: str, each: int = _DATAGRAMS) -> tuple[int, int]:
    """How many datagrams to an address came to the task's card, and about how many their senders were told."""
    forwarded = told = 0
    wanted, at = raw.ip(address), 38 if ":" in address else 30
    for client in clients:
        with Card(vm) as card, Sender(client, address) as sender:
            for _ in range(each):
                sender.send()
                told += sender.told(0.03) is not None
            while (frame := card.read()) is not None:
                forwarded += frame[at : at + len(wanted)] == wanted and frame[6:12] != raw.mac(vm.spec.mac)
    return forwarded, told


def _burst(client: VM, address: str) -> int:
    """How many errors a client is sent for as many datagrams as it can send at once."""
    before = _icmp(client)
    with netns.entered(client.namespace):
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # not connected: it hears of no errors
    with plain:
        for _ in range(_BURST):
            plain.sendto(b"late", (address, PORT))
    _still(lambda: _icmp(client))
    return _icmp(client) - before


def _icmp(client: VM) -> int:
    text = netns.run(netns.inside(client.namespace, ["nstat", "-asz", "IcmpInDestUnreachs"]))
    return int(text.split("IcmpInDestUnreachs")[1].split()[0])


def _still(count: Callable[[], int], seconds: float = 0.5) -> None:
    """Wait until a count has not changed for so long."""
    seen, since = count(), time.monotonic()
    deadline = since + 10
    while time.monotonic() < min(deadline, since + seconds):
        time.sleep(0.05)
        now = count()
        if now != seen:
            seen, since = now, time.monotonic()
