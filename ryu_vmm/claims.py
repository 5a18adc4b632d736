"""What a frame that reached the NVA says of who has which address, held against an interface.

Switches check the same before (admission.py); but not at a port whose flows are not there yet, nor at nobody's port.
"""

from __future__ import annotations

from .addresses import link_local
from .model import Interface
from .wire import frames
from .wire.frames import Kind

ANNOUNCEMENTS = (Kind.GARP, Kind.NA_UNSOLICITED, Kind.RARP_REQUEST)
#: What claims an address, if only as who asks.
CLAIMS = (*ANNOUNCEMENTS, Kind.ARP_REQUEST, Kind.ARP_REPLY, Kind.NA, Kind.RARP_REPLY)
_DISCOVERY = (Kind.NS, Kind.DAD, Kind.NA, Kind.NA_UNSOLICITED)


def speaks_for_itself(interface: Interface, frame: bytes, kind: Kind) -> bool:
    """Whether a sign of life, which its port admits, says nothing of others in its neighbor discovery, either.

    Raises:
        DecodeError: it is malformed.
    """
    if kind not in _DISCOVERY:
        return True
    nd = frames.parse_nd(frame)
    macs = _macs(interface)
    own = (*interface.ipv6, *map(link_local, macs))
    return nd.lladdr in (None, *macs) and (nd.type == frames.NS or nd.target in own)


def _macs(interface: Interface) -> tuple[bytes, ...]:
    """The MACs that an interface may send from."""
    return (interface.mac, *interface.shared_macs)


def claims_own(interface: Interface, frame: bytes, kind: Kind) -> bool:
    """Whether a frame says of an interface what is so, and of nobody else anything.

    Raises:
        DecodeError: it is malformed.
    """
    macs = _macs(interface)
    if frame[6:12] not in macs:
        return False
    if kind in (Kind.GARP, Kind.ARP_REQUEST, Kind.ARP_REPLY):
        arp = frames.parse_arp(frame)
        return arp.sha in macs and arp.spa in interface.ipv4
    if kind in (Kind.NA_UNSOLICITED, Kind.NA):
        nd = frames.parse_nd(frame)
        own = (*interface.ipv6, *map(link_local, macs))
        return nd.target in own and nd.src in own and nd.lladdr in (None, *macs)
    if kind is Kind.RARP_REQUEST:
        rarp = frames.parse_rarp(frame)
        return rarp.sha in macs and rarp.tha in macs
    return False
