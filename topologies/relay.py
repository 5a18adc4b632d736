"""The control channel: one process that carries OpenFlow between the NVEs' namespaces and the NVA's address.

The NVA listens in the root namespace; an NVE reaches nothing but its underlay and its own loopback. So this
process listens on 127.0.0.1 inside each NVE's namespace and connects each accepted connection to the NVA in
the root namespace. No interface of the topology ever appears in the root namespace. Closes are passed on in
both directions, and a channel can be cut and restored, which is how tests make an NVE lose its NVA.

Run by `topologies.helper.Helper`; all requests are `do_*` methods.
"""

from __future__ import annotations

import contextlib
import gc
import select
import socket
from typing import Any

from topologies import netns
from topologies.helper import Commands

_CHUNK = 65536
_HIGH = 1 << 20  # bytes waiting for one slow reader before its sender is no longer read
_HANDSHAKE = 40  # bytes a switch has sent when it has said hello (8 or more) and its features (32)
_RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER on, 0 s: close with a reset


class End:
    """One end of a connection. `out` holds bytes this end's peer could not take yet."""

    __slots__ = ("sock", "fd", "other", "out", "channel", "connecting", "eof", "to_switch", "mask", "got")

    def __init__(self, sock: socket.socket, channel: Channel, to_switch: bool) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.fd, self.channel, self.to_switch = sock, sock.fileno(), channel, to_switch
        self.other: End | None = None
        self.out = bytearray()
        self.connecting = False
        self.eof = False  # nothing more will be written to this end: shut down once `out` is empty
        self.mask = 0
        self.got = 0  # bytes read from this end


class Channel:
    """One NVE's channel: where it listens, where it goes, how it is disturbed."""

    def __init__(self, nve: str, namespace: str, port: int, upstream: tuple[str, int]) -> None:
        self.nve, self.namespace, self.port, self.upstream = nve, namespace, port, upstream
        self.listener: socket.socket | None = None
        self.ends: set[End] = set()
        self.stalled = {"switch": False, "nva": False}  # bytes *towards* these wait
        self.accepted = 0
        self.bytes = {"switch": 0, "nva": 0}


class Relay:
    """All channels of one topology."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._channels: dict[str, Channel] = {}
        self._listeners: dict[int, Channel] = {}
        self._ends: dict[int, End] = {}
        self._commands = Commands(self)
        self._poll.register(self._commands.fileno(), select.EPOLLIN)

    def serve(self) -> None:
        """Carry bytes and serve requests until the parent is gone."""
        command_fd = self._commands.fileno()
        while True:
            for fd, events in self._poll.poll():
                end = self._ends.get(fd)
                if end is not None:
                    self._event(end, events)
                elif fd in self._listeners:
                    self._accept(self._listeners[fd])
                elif fd == command_fd and not self._commands.readable():
                    return

    # --- connections ----------------------------------------------------------------------------------

    def _accept(self, channel: Channel) -> None:
        assert channel.listener is not None
        try:
            sock, _ = channel.listener.accept()
        except OSError:
            return
        channel.accepted += 1
        switch = End(sock, channel, to_switch=True)
        family = socket.AF_INET6 if ":" in channel.upstream[0] else socket.AF_INET
        nva = End(socket.socket(family, socket.SOCK_STREAM), channel, to_switch=False)
        switch.other, nva.other = nva, switch
        nva.connecting = True
        for end in (switch, nva):
            self._ends[end.fd] = end
            channel.ends.add(end)
            self._poll.register(end.fd, 0)
        try:
            nva.sock.connect(channel.upstream)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(nva)
            return
        self._interest(nva)

    def _interest(self, end: End) -> None:
        """Poll an end for exactly what it can do now."""
        other = end.other
        assert other is not None
        mask = 0
        if end.connecting:
            mask = select.EPOLLOUT
        else:
            towards = "nva" if end.to_switch else "switch"
            if not other.eof and len(other.out) < _HIGH and not end.channel.stalled[towards] and not other.connecting:
                mask |= select.EPOLLIN
            if end.out:
                mask |= select.EPOLLOUT
        if mask != end.mask:
            end.mask = mask
            self._poll.modify(end.fd, mask)

    def _event(self, end: End, events: int) -> None:
        if end.connecting:
            if end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._drop(end)
                return
            end.connecting = False
            self._interest(end)
            assert end.other is not None
            self._interest(end.other)
            return
        if events & select.EPOLLOUT and not self._flush(end):
            return
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            if end.mask & select.EPOLLIN:
                self._read(end)
            elif events & (select.EPOLLHUP | select.EPOLLERR):  # gone both ways, and nothing left to say
                self._drop(end)

    def _read(self, end: End) -> None:
        other = end.other
        assert other is not None
        try:
            data = end.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._drop(end)
            return
        if not data:
            other.eof = True
            if self._flush(other) and end.eof:
                self._drop(end, reset=False)
            elif other.fd in self._ends:
                self._interest(end)
            return
        end.got += len(data)
        end.channel.bytes["nva" if end.to_switch else "switch"] += len(data)
        if not other.out:
            try:
                sent = other.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._drop(other)
                return
            if sent == len(data):
                return
            data = data[sent:]
        other.out += data
        self._interest(end)
        self._interest(other)

    def _flush(self, end: End) -> bool:
        """Write what waits; False when the connection is gone."""
        try:
            while end.out:
                del end.out[: end.sock.send(end.out)]
            if end.eof:
                end.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(end)
            return False
        assert end.other is not None
        if end.eof and end.other.eof and not end.out and not end.other.out:
            self._drop(end, reset=False)
            return False
        self._interest(end)
        self._interest(end.other)
        return True

    def _drop(self, end: End, reset: bool = True) -> None:
        """Close both ends; with a reset where the other side would otherwise believe in an orderly end."""
        for one in (end, end.other):
            if one is not None and self._ends.pop(one.fd, None) is not None:
                one.channel.ends.discard(one)
                self._poll.unregister(one.fd)
                with contextlib.suppress(OSError):
                    if reset:
                        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.sock.close()

    # --- requests -------------------------------------------------------------------------------------

    def _listen(self, channel: Channel) -> None:
        with netns.entered(channel.namespace):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        try:
            listener.bind(("127.0.0.1", channel.port))
            listener.listen(16)
        except OSError:
            listener.close()
            raise
        channel.listener = listener
        self._listeners[listener.fileno()] = channel
        self._poll.register(listener.fileno(), select.EPOLLIN)

    def _deafen(self, channel: Channel) -> None:
        if channel.listener is not None:
            del self._listeners[channel.listener.fileno()]
            self._poll.unregister(channel.listener.fileno())
            channel.listener.close()
            channel.listener = None

    def do_listen(self, nve: str, namespace: str, port: int, host: str, to_port: int) -> dict[str, Any]:
        """Open a channel: 127.0.0.1:`port` in the NVE's namespace leads to `host`:`to_port` in this one."""
        if nve in self._channels:
            raise ValueError(f"{nve} has a channel already")
        channel = Channel(nve, namespace, port, (host, to_port))
        self._listen(channel)
        self._channels[nve] = channel
        return {}

    def do_retarget(self, nve: str, host: str, to_port: int) -> dict[str, Any]:
        """Send the NVE's next connections elsewhere; connections that are up stay."""
        self._channels[nve].upstream = (host, to_port)
        return {}

    def do_cut(self, nve: str, how: str = "close") -> dict[str, Any]:
        """Disturb a channel.

        `close`: reset what is connected and refuse new connections. `stall`: everything stays connected and
        nothing arrives any more; `stall-switch` and `stall-nva` do so in one direction only, towards the one
        named.
        """
        channel = self._channels[nve]
        if how == "close":
            self._deafen(channel)
            for end in list(channel.ends):
                self._drop(end)
        elif how in ("stall", "stall-switch", "stall-nva"):
            for side in channel.stalled:
                if how in ("stall", f"stall-{side}"):
                    channel.stalled[side] = True
            for end in channel.ends:
                self._interest(end)
        else:
            raise ValueError(f"unknown cut {how!r}")
        return {}

    def do_restore(self, nve: str) -> dict[str, Any]:
        """Undo every cut of a channel."""
        channel = self._channels[nve]
        channel.stalled = {"switch": False, "nva": False}
        for end in list(channel.ends):
            self._interest(end)
        if channel.listener is None:
            self._listen(channel)
        return {}

    def do_unlisten(self, nve: str) -> dict[str, Any]:
        """Close a channel for good."""
        channel = self._channels.pop(nve)
        self._deafen(channel)
        for end in list(channel.ends):
            self._drop(end)
        return {}

    def do_counts(self) -> dict[str, Any]:
        """Per channel: connections now, of these past the OpenFlow handshake, is it cut, connections ever,
        bytes.
        """
        return {
            name: {
                "connected": len(channel.ends) // 2,
                "greeted": sum(end.to_switch and end.got >= _HANDSHAKE for end in channel.ends),
                "cut": channel.listener is None or any(channel.stalled.values()),
                "accepted": channel.accepted,
                "bytes": channel.bytes,
            }
            for name, channel in self._channels.items()
        }


def main() -> None:
    """Serve until the parent closes its end."""
    relay = Relay()
    gc.collect()
    gc.freeze()
    relay.serve()


if __name__ == "__main__":
    main()
