"""The constant answer that the applications to compare with send: as long as an ARP reply, out of port 2."""

import struct

_FRAME = bytes.fromhex("0200000000010200000000020806") + bytes(28)
_OUTPUT = struct.pack("!HHIH6x", 0, 16, 2, 0xFFFF)
#: A packet-out from port 1.
ANSWER = struct.pack("!BBHIIIH6x", 4, 13, 24 + 16 + len(_FRAME), 0, 0xFFFFFFFF, 1, 16) + _OUTPUT + _FRAME
