"""The numbered datagram: 28 bytes at the start of every payload, network byte order.

    magic "vmm1" | VN tag (u32) | flow (u32) | sequence number (u64) | sent, CLOCK_MONOTONIC nanoseconds (u64)

The clock is shared by all namespaces of a machine, so `arrived - sent` is a delay.
"""

from __future__ import annotations

import struct

MAGIC = b"vmm1"
HEADER = struct.Struct("!4sIIQQ")
PORT = 5001
