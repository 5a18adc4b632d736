"""Numbers that the NVA keeps for itself: VNIs, and meters by them."""

from __future__ import annotations

#: VNIs from here on are the NVA's own: redirect marks and probes. Networks use 1 .. VNI_RESERVED - 1.
VNI_RESERVED = 0xFFE000
#: The VNI that path probes travel under.
PROBE_VNI = 0xFFEFFF
#: The identifier that probes of ILA are for, at every locator: no task may have it. They are of an IP protocol that is
#: for experiments (RFC 3692).
PROBE_IDENTIFIER = b"\xff" * 7 + b"\xfe"
PROBE_PROTOCOL = 253
#: Each mark has so many meters at the source: slot 0 for the source's own VMs, then one for each correspondent NVE, the
#: last for all further ones. Behind those come others; see limits.py.
METER_SLOTS = 64
#: Redirected packets travel under MARK_BASE + n, one n per open move, so that both ends count exactly them.
MARK_BASE = 0xFFF000
MARKS = 0xF00
