"""Listening at many cards at once."""

from __future__ import annotations

import select
import threading
from collections.abc import Sequence
from typing import Self

from .raw import Card


class Ears:
    """Hears every frame that comes to some cards, in a thread of its own, and closes them; a context manager."""

    def __init__(self, cards: Sequence[Card], name: str) -> None:
        self._cards = {card.sock.fileno(): card for card in cards}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=name)

    def heard(self, card: Card, frame: bytes) -> None:
        """A frame has come to a card; for the derived class to say what of it."""
        raise NotImplementedError

    def _listen(self) -> None:
        poll = select.epoll()
        for fd in self._cards:
            poll.register(fd, select.EPOLLIN)
        while not self._stop.is_set():
            for fd, _ in poll.poll(0.05):
                card = self._cards[fd]
                while (frame := card.read()) is not None:
                    self.heard(card, frame)
        poll.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()
        for card in self._cards.values():
            card.sock.close()
