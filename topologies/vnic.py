"""The VMs' network cards: one process that carries frames between each guest's tap and its hypervisor's tap.

This is QEMU's part. A guest's `eth0` is a tap in the guest's namespace; the port `tap-<vm>` is a tap in the
hypervisor's namespace; this process reads one and writes the other. A paused VM is a VM whose frames are not
carried: they wait in the taps' queues, in both directions, and are delivered in order on resume. A VM may
have taps at several NVEs at once (the destination of a move prepares its own early); at most one of them is
active.

Run by `topologies.helper.Helper`; all requests are `do_*` methods. Times are CLOCK_MONOTONIC seconds, which
all processes of one machine share.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import os
import select
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from topologies import netns
from topologies.helper import Commands
from topologies.tap import QUEUE, hypervisor_mac, open_tap

_BATCH = 64  # frames carried for one descriptor before the others get their turn
_ROOM = 2048  # larger than any frame: the largest MTU here is 1600


class Tap:
    """The tap of one VM in one hypervisor's namespace."""

    def __init__(self, nve: str, fd: int) -> None:
        self.nve = nve
        self.fd = fd


class Guest:
    """One VM: its own tap, its taps at hypervisors, and which of these is active."""

    def __init__(self, name: str, fd: int, mac: str, mtu: int) -> None:
        self.name, self.fd, self.mac, self.mtu = name, fd, mac, mtu
        self.taps: dict[str, Tap] = {}
        self.active: Tap | None = None
        self.epoch = 0  # counts pauses and resumes, so a late announcement knows that it is late
        self.counts = {"to_guest": 0, "from_guest": 0, "refused": 0}


class Resuming:
    """A resume in progress: the queue of the destination tap goes first, then the announcement, then the
    guest.
    """

    def __init__(self, guest: Guest, frames: list[tuple[float, bytes]], started: float) -> None:
        self.guest, self.frames, self.started = guest, frames, started
        self.delivered = 0


class Route:
    """Frames read from one descriptor go to another; `counter` names the statistic."""

    __slots__ = ("target", "guest", "counter", "resuming")

    def __init__(self, target: int, guest: Guest, counter: str, resuming: Resuming | None = None) -> None:
        self.target, self.guest, self.counter, self.resuming = target, guest, counter, resuming


class Vnic:
    """All VMs of one topology."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._guests: dict[str, Guest] = {}
        self._routes: dict[int, Route] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._commands = Commands(self)
        self._poll.register(self._commands.fileno(), select.EPOLLIN)

    # --- carrying frames ------------------------------------------------------------------------------

    def serve(self) -> None:
        """Carry frames and serve requests until the parent is gone."""
        command_fd = self._commands.fileno()
        routes, poll = self._routes, self._poll.poll
        while True:
            for fd, _ in poll(self._until_timer()):
                route = routes.get(fd)
                if route is not None:
                    self._carry(fd, route)
                elif fd == command_fd and not self._commands.readable():
                    return
            if self._timers:
                self._fire()

    def _carry(self, fd: int, route: Route, read: Any = os.read, write: Any = os.write) -> None:
        """Carry up to a batch of frames; an empty queue ends it."""
        target, carried = route.target, 0
        empty = False
        try:
            for _ in range(_BATCH):
                frame = read(fd, _ROOM)
                try:
                    write(target, frame)
                    carried += 1
                except OSError:  # the interface is down: the frame is lost as on a pulled cable
                    route.guest.counts["refused"] += 1
        except BlockingIOError:
            empty = True
        except OSError:  # the device was deleted under us
            self._unroute(fd)
            if route.resuming is not None:
                self._commands.reply({"error": f"the tap of {route.guest.name} is gone"})
            return
        route.guest.counts[route.counter] += carried
        if route.resuming is not None:
            route.resuming.delivered += carried
            if empty or route.resuming.delivered >= QUEUE:
                self._resumed(route)

    def _route(self, fd: int, route: Route) -> None:
        self._routes[fd] = route
        self._poll.register(fd, select.EPOLLIN)

    def _unroute(self, fd: int) -> None:
        if self._routes.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _drain(self, source: int, target: int | None) -> int:
        """Empty a tap's queue into `target` (None: just count). Never waits; bounded by the queue's length."""
        frames = 0
        try:
            while frames < QUEUE:
                frame = os.read(source, _ROOM)
                frames += 1
                if target is not None:
                    os.write(target, frame)
        except OSError:
            pass
        return frames

    # --- announcements --------------------------------------------------------------------------------

    def _until_timer(self) -> float:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1

    def _fire(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _schedule(self, frames: list[tuple[float, bytes]], send: Callable[[bytes], None]) -> None:
        """Send frames at their times from now, those without delay at once."""
        now = time.monotonic()
        for delay, frame in frames:
            if delay <= 0:
                send(frame)
            else:
                self._serial += 1
                fire: Callable[[], None] = partial(send, frame)
                heapq.heappush(self._timers, (now + delay, self._serial, fire))

    def _announce(self, guest: Guest, frames: list[tuple[float, bytes]]) -> None:
        epoch = guest.epoch

        def send(frame: bytes) -> None:
            if guest.active is None or guest.epoch != epoch:
                return  # the VM was paused or moved on since
            try:
                os.write(guest.active.fd, frame)
            except OSError:
                guest.counts["refused"] += 1

        self._schedule(frames, send)

    def _resumed(self, route: Route) -> None:
        """The destination's queue is delivered: announce, let the guest's own frames out, answer the parent."""
        resuming, route.resuming = route.resuming, None
        assert resuming is not None
        guest = resuming.guest
        self._announce(guest, resuming.frames)
        announced = time.monotonic()
        assert guest.active is not None
        self._route(guest.fd, Route(guest.active.fd, guest, "from_guest"))
        self._commands.reply({"at": resuming.started, "announced": announced, "queued": resuming.delivered})

    # --- requests -------------------------------------------------------------------------------------

    def do_guest(self, vm: str, namespace: str, ifname: str, mac: str, mtu: int) -> dict[str, Any]:
        """Create a VM's own tap. Its NIC is connected to nothing yet."""
        if vm in self._guests:
            raise ValueError(f"VM {vm} exists")
        self._guests[vm] = Guest(vm, open_tap(namespace, ifname, mac, mtu), mac, mtu)
        return {}

    def do_tap(self, vm: str, nve: str, namespace: str, ifname: str, queue: int = QUEUE) -> dict[str, Any]:
        """Create a VM's tap in a hypervisor's namespace; up to `queue` frames that arrive there wait until `resume`."""
        guest = self._guests[vm]
        if nve in guest.taps:
            raise ValueError(f"VM {vm} has a tap at {nve} already")
        guest.taps[nve] = Tap(nve, open_tap(namespace, ifname, hypervisor_mac(guest.mac), guest.mtu, True, queue))
        return {"at": time.monotonic()}

    def do_pause(self, vm: str) -> dict[str, Any]:
        """Stop a VM: what its hypervisor's tap holds now is still delivered, then nothing moves any more."""
        guest = self._guests[vm]
        tap = guest.active
        if tap is None:
            raise ValueError(f"VM {vm} is not running")
        self._unroute(guest.fd)
        at = time.monotonic()
        self._unroute(tap.fd)
        drained = self._drain(tap.fd, guest.fd)
        guest.counts["to_guest"] += drained
        guest.active = None
        guest.epoch += 1
        return {"at": at, "drained": drained, "nve": tap.nve}

    def do_resume(self, vm: str, nve: str, frames: list[tuple[float, str]]) -> None:
        """Run a VM at an NVE; answered when the tap's queue is delivered and the announcement is out.

        `frames` are (delay in seconds after the resume, frame in hex); they go out as if the guest had sent
        them.
        """
        guest = self._guests[vm]
        if guest.active is not None:
            raise ValueError(f"VM {vm} is running at {guest.active.nve}")
        tap = guest.active = guest.taps[nve]
        guest.epoch += 1
        decoded = [(delay, bytes.fromhex(frame)) for delay, frame in frames]
        route = Route(guest.fd, guest, "to_guest", Resuming(guest, decoded, time.monotonic()))
        self._route(tap.fd, route)
        self._carry(tap.fd, route)

    def do_announce(self, vm: str, frames: list[tuple[float, str]], nve: str | None = None) -> dict[str, Any]:
        """Send frames as if the guest had; at another of its taps than the active one if `nve` says so."""
        guest = self._guests[vm]
        decoded = [(delay, bytes.fromhex(frame)) for delay, frame in frames]
        if nve is not None and (guest.active is None or guest.active.nve != nve):
            for _, frame in decoded:
                os.write(guest.taps[nve].fd, frame)
        elif guest.active is None:
            raise ValueError(f"VM {vm} is not running")
        else:
            self._announce(guest, decoded)
        return {"at": time.monotonic()}

    def do_shout(self, namespace: str, ifname: str, frames: list[tuple[float, str]]) -> dict[str, Any]:
        """Send frames out of an interface that is not ours, as the guest's own kernel would (a container's veth)."""
        with netns.entered(namespace):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sock.bind((ifname, 0))

        def send(frame: bytes) -> None:
            with contextlib.suppress(OSError):  # the carrier is gone: so is the announcement
                sock.send(frame)

        at = time.monotonic()
        self._schedule([(delay, bytes.fromhex(frame)) for delay, frame in frames], send)
        return {"at": at}  # the socket is closed with the last reference to `send`

    def do_empty(self, vm: str, nve: str) -> dict[str, Any]:
        """Discard what waits in an idle tap of a VM, and say how many frames that was (`left`)."""
        guest = self._guests[vm]
        tap = guest.taps[nve]
        if guest.active is tap:
            raise ValueError(f"VM {vm} is running at {nve}")
        return {"at": time.monotonic(), "left": self._drain(tap.fd, None)}

    def do_untap(self, vm: str, nve: str) -> dict[str, Any]:
        """Delete a VM's tap at a hypervisor. `left` frames were waiting there and are lost with it."""
        guest = self._guests[vm]
        tap = guest.taps.pop(nve)
        if guest.active is tap:
            self._unroute(guest.fd)
            self._unroute(tap.fd)
            guest.active = None
            guest.epoch += 1
        left = self._drain(tap.fd, None)
        os.close(tap.fd)
        return {"at": time.monotonic(), "left": left}

    def do_forget(self, vm: str) -> dict[str, Any]:
        """Delete a VM's own tap and all others it has."""
        guest = self._guests[vm]
        for nve in list(guest.taps):
            self.do_untap(vm, nve)
        os.close(guest.fd)
        del self._guests[vm]
        return {}

    def do_counts(self, vm: str | None = None) -> dict[str, Any]:
        """Frames carried since the start, per VM (or of one VM), and the processor seconds used for all."""
        guests = self._guests.values() if vm is None else [self._guests[vm]]
        return {"vms": {guest.name: guest.counts for guest in guests}, "cpu": time.process_time()}


def main() -> None:
    """Serve until the parent closes its end."""
    vnic = Vnic()
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a collection is a stall for every VM
    vnic.serve()


if __name__ == "__main__":
    main()
