"""The source of a move that nobody had announced is watched: a VM that still runs there is taken back.

Where a sign of life came from a VM's destination while the port at its source was up and no hypervisor had said 'about
to pause' (signs.py), the source's port hands over what its guest sends (admission.py) and is asked: an ARP probe or a
neighbor solicitation, which a guest that runs answers and nobody else can. An answer or an announcement is proof; else
what only a guest says must be heard twice, with more time between than any queue holds it back.
"""

from __future__ import annotations

from dataclasses import replace

from .claims import ANNOUNCEMENTS
from .flows import Output
from .mobility import MoveEvent
from .model import Interface, Move
from .moves import Moves
from .signs import TABLE, Sign, Verdict, sign_of
from .unasked import Unasked
from .wire import frames
from .wire.frames import Kind
from .work import Work

__all__ = ["ASKER", "ASK_AFTER", "HEARD_AGAIN", "Watch"]

#: Seconds after the steering at which the source is asked. The first answer may still meet the flows before.
ASK_AFTER = (0.02, 0.25, 1.0)
#: Seconds from the first frame heard at the source until a further one counts: what was queued has come by then.
HEARD_AGAIN = 0.25
#: Who asks: a locally administered address (IEEE 802c) that no guest has, and the link-local address made of it.
ASKER = b"\x02\x76\x6d\0\0\3"
_ASKER_IPV6 = b"\xfe\x80\0\0\0\0\0\0\0\x76\x6d\xff\xfe\0\0\3"


class Watch:
    """Judges signs of life, asks watched sources and listens to them."""

    def __init__(self, work: Work, moves: Moves, unasked: Unasked) -> None:
        self._work = work
        self._moves = moves
        self._unasked = unasked

    def expected(self, interface: Interface, frame: bytes, kind: Kind, by: str) -> None:
        """A frame came from the port where a move takes an interface: whether the VM runs there by now (signs.py).

        Raises:
            DecodeError: it is malformed.
        """
        state = self._work.state
        active = state.active_move(interface.id)
        if active is None:
            return
        move, leg = active
        verdict = TABLE[sign_of(interface, frame, kind), move.asked, not state.has_gone(leg.src)]
        if verdict is Verdict.NOTHING:
            self._work.count("sign.by-itself")
            return
        self._moves.fire(move.id, MoveEvent.ALIVE, by)
        if verdict is Verdict.WATCHED:
            self.begin(move.id)

    def begin(self, number: int) -> None:
        """A move has steered by a sign of life that its source may contradict."""
        state = self._work.state
        state.put("moves", number, replace(state.moves[number], watched=True))
        state.put("clock", ("watch", number), self._work.now + ASK_AFTER[0])

    def resume(self) -> None:
        """After a restart: who is watched is asked again."""
        for move in self._work.state.open_moves():
            if move.watched:
                self._work.state.put("clock", ("watch", move.id), self._work.now + ASK_AFTER[1])

    def is_back(self, nve: str) -> None:
        """An NVE is in sync: the watched sources there are asked, and answers waited for; what was asked is lost."""
        state, now = self._work.state, self._work.now
        for move in state.open_moves():
            if move.watched and move.source == nve:
                state.put("clock", ("watch", move.id), now + ASK_AFTER[0])
                state.put("clock", ("rewatch", move.id), now + ASK_AFTER[1])

    def time(self, number: int) -> None:
        """It is time to ask a move's source."""
        state = self._work.state
        move = state.moves[number]
        if not move.watched:
            return
        for leg in move.legs:
            interface = state.interfaces.get(leg.interface)
            if interface is not None and interface.location == leg.dst:
                self._ask(move, interface)
        since = self._work.now - move.triggered
        later = next((after for after in ASK_AFTER if after > since + ASK_AFTER[0]), None)
        if later is not None:
            state.put("clock", ("watch", number), move.triggered + later)

    def heard(self, move: Move, interface: Interface, frame: bytes, kind: Kind, by: str) -> None:
        """A frame of the guest came from the watched source of a move, in the epoch that holds now.

        Raises:
            DecodeError: it is malformed.
        """
        state, now = self._work.state, self._work.now
        sign = sign_of(interface, frame, kind)
        if frame[:6] == ASKER or kind in ANNOUNCEMENTS:
            self._unasked.taken_back(move, interface, by)
            return
        first = state.overheard.get(move.id)
        if first is None:
            state.put("overheard", move.id, now)
            self._ask(move, interface)
        elif sign is Sign.SPOKEN and now - first >= HEARD_AGAIN:
            self._unasked.taken_back(move, interface, by)

    def _ask(self, move: Move, interface: Interface) -> None:
        """Ask the source's port for the addresses of an interface: by unicast, so that nobody else is."""
        state = self._work.state
        leg = next(leg for leg in move.legs if leg.interface == interface.id)
        port = state.port_at(leg.src)
        if port is None or port.nve not in state.sessions:
            return
        asked = [frames.build_arp_request(ASKER, bytes(4), ip, interface.mac) for ip in interface.ipv4[:1]]
        asked += [interface.mac + frames.build_ns(ASKER, _ASKER_IPV6, ip)[6:] for ip in interface.ipv6[:1]]
        for question in asked:
            self._work.send(port.nve, (Output(port.number),), question)
