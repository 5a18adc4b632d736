"""A task's image: named parts in one stream of bytes, checked as a whole and one by one.

    "VMMTASK" 01                            8 bytes: what this is, and the version of the format
    for each part, in order:
      length of its name (2), its length (8), its name (ASCII), its bytes, SHA-256 of name and bytes (32)
    0000                                    2 bytes: no further part
    SHA-256 of all that came before         32 bytes

Numbers are in network order. The part ``task`` (JSON) comes first and says whose image it is; the others are the
driver's. ``read`` takes nothing that is larger than told, cut off, longer than it says, or changed.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Mapping
from typing import IO

from .faults import BadImage

__all__ = ["MAGIC", "dumps", "loads", "read", "size_of", "write"]

MAGIC = b"VMMTASK\x01"
_PART = struct.Struct("!HQ")
_END = struct.pack("!H", 0)
_DIGEST = hashlib.sha256().digest_size
MAX_NAME, MAX_PARTS = 255, 4096
_CHUNK = 1 << 20


def size_of(parts: Mapping[str, bytes]) -> int:
    """How many bytes ``write`` makes of them."""
    return len(MAGIC) + sum(_PART.size + len(n) + len(d) + _DIGEST for n, d in parts.items()) + len(_END) + _DIGEST


def write(parts: Mapping[str, bytes], file: IO[bytes]) -> None:
    """Write parts as an image. ValueError for a name that is not 1 to 255 ASCII characters."""
    whole = hashlib.sha256()

    def put(data: bytes) -> None:
        whole.update(data)
        file.write(data)

    put(MAGIC)
    for name, data in parts.items():
        label = name.encode("ascii")
        if not 1 <= len(label) <= MAX_NAME:
            raise ValueError(f"{name!r} cannot name a part of an image")
        put(_PART.pack(len(label), len(data)) + label)
        put(data)
        put(hashlib.sha256(label + data).digest())
    put(_END)
    file.write(whole.digest())


def read(file: IO[bytes], most: int) -> dict[str, bytes]:
    """The parts of an image of at most ``most`` bytes. Raises BadImage, OSError."""
    whole = hashlib.sha256()
    left = most

    def take(size: int, hashed: bool = True) -> bytes:
        nonlocal left
        if size > left:
            raise BadImage(f"the image is larger than {most} bytes")
        left -= size
        data = bytearray()
        while len(data) < size:
            part = file.read(min(size - len(data), _CHUNK))
            if not part:
                raise BadImage("the image is cut off")
            data += part
        if hashed:
            whole.update(data)
        return bytes(data)

    if take(len(MAGIC)) != MAGIC:
        raise BadImage("this is not an image of a task, or of another version")
    parts: dict[str, bytes] = {}
    while True:
        head = take(2)
        if head == _END:
            break
        length, size = _PART.unpack(head + take(_PART.size - 2))
        label = take(length)
        data = take(size)
        if take(_DIGEST) != hashlib.sha256(label + data).digest():
            raise BadImage(f"part {label!r} of the image is damaged")
        name = label.decode("ascii", errors="replace")
        if length > MAX_NAME or name.encode("ascii", errors="replace") != label or name in parts:
            raise BadImage(f"the image has a part {label!r}")
        parts[name] = data
        if len(parts) > MAX_PARTS:
            raise BadImage("the image has too many parts")
    digest = whole.digest()
    if take(_DIGEST, hashed=False) != digest:
        raise BadImage("the image is damaged")
    if file.read(1):
        raise BadImage("something follows the image")
    return parts


def loads(data: bytes, most: int) -> dict[str, bytes]:
    """``read`` from bytes."""
    return read(io.BytesIO(data), most)


def dumps(parts: Mapping[str, bytes]) -> bytes:
    """``write`` to bytes."""
    file = io.BytesIO()
    write(parts, file)
    return file.getvalue()
