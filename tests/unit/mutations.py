"""Changed inputs: cut, swapped, stretched, spliced, with numbers that are seldom meant."""

from __future__ import annotations

import random
from collections.abc import Sequence

#: Longest input; a switch's message has no more than 65,535 bytes.
LONGEST = 1 << 16
_NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)
_TEXTS = (b"", b"null", b"-1", b"1e999", b"9" * 5000, b"{}", b"[]", b'"', b"\\ud800", b"\0", b"\xff\xfe", b"%00")
_NESTED = (b"[" * 20000, b'{"a":' * 10000, b"- " * 2000, b"&a [*a,*a]", b"!!python/object:os.system ")


def mutate(dice: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One input more, made of one or two that are there."""
    data = bytearray(dice.choice(corpus))
    for _ in range(dice.choice((1, 1, 2, 3, 6))):
        size = len(data)
        at = dice.randrange(size + 1)
        match dice.randrange(10):
            case 0:
                data[at:at] = dice.randbytes(dice.choice((1, 2, 4, 8, 64)))
            case 1:
                del data[at : at + dice.choice((1, 1, 2, 4, 8, 64))]
            case 2 if size:
                data[at % size] ^= 1 << dice.randrange(8)
            case 3 if size:
                data[at % size] = dice.randrange(256)
            case 4:
                width = dice.choice((1, 2, 4, 8))
                data[at : at + width] = (dice.choice(_NUMBERS) & ((1 << 8 * width) - 1)).to_bytes(width, "big")
            case 5:
                other = dice.choice(corpus)
                cut = dice.randrange(len(other) + 1)
                data[at:] = other[cut:]
            case 6:
                piece = bytes(data[at : at + dice.choice((4, 8, 16, 64))])
                data[at:at] = piece * dice.choice((1, 2, 30))
            case 7:
                data[at : at + dice.choice((0, 1, 4))] = dice.choice(_TEXTS)
            case 8:
                # A length that fits again lets the decoder look further than the header.
                data[2:4] = min(len(data), 0xFFFF).to_bytes(2, "big")
            case 9 if not dice.randrange(20):
                data[at:at] = dice.choice(_NESTED)
    return bytes(data[:LONGEST])
