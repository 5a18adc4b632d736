"""What ports have sent and were not admitted to send: remembered for whoever asks why a guest is not heard.

A guest that uses an address nobody has registered is no offender, and finds out nothing: its packets are dropped in the
switch. Samples of them are handed over, through a meter of the port's own or, of what no port at all may say, of the
NVE's; a port that goes on is only counted for a while. What was seen is told by event like everything that is not
believed (refusals.py), and remembered by port: the last MOST causes and addresses, as long as port and interface stay.
"""

from __future__ import annotations

from . import addresses
from .model import Place, Unadmitted
from .tables import Drop
from .wire import frames
from .work import Work

#: Causes and addresses that are remembered of a port.
MOST = 16
#: Ports of which anything is remembered.
MOST_PORTS = 4096
#: Samples in WINDOW seconds after which a port is sampled no more for the silence time.
ENOUGH = 50
WINDOW = 10.0
_ETH_IPV4 = b"\x08\0"

#: What admission drops that is not a claim about an address (those are refusals._FORGED), in words.
CAUSES: dict[int, str] = {
    Drop.SPOOFED_MAC: "comes from a MAC that is not the interface's",
    Drop.SPOOFED_ADDRESS: "comes from an address that is not the interface's",
    Drop.ROUTER_ADVERTISEMENT: "is a router's advertisement",
    Drop.ICMP_REDIRECT: "is a router's redirect",
    Drop.DHCP_SERVER: "is a DHCP server's, or for one",
    Drop.FRAGMENTED_ND: "is neighbor discovery in fragments",
    Drop.BROKEN_HEADERS: "has a chain of headers that cannot be followed",
}


class Samples:
    """Takes in samples of what was not admitted."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._sampled: dict[Place, tuple[float, int]] = {}  # start of the window, samples in it

    def note(self, place: Place, interface: str, cause: Drop, address: bytes) -> None:
        """Remember a packet that an interface's port was not admitted to send. ``address``: 4, 6 or 16 bytes."""
        state = self._work.state
        known = [seen for seen in state.unadmitted.get(place, ()) if seen.interface == interface]
        if not known and len(state.unadmitted) >= MOST_PORTS:
            return
        same = next((seen for seen in known if (seen.cause, seen.address) == (cause, address)), None)
        packets = 1 if same is None else same.packets + 1
        rest = [seen for seen in known if seen is not same][: MOST - 1]
        first = Unadmitted(interface, cause, address, packets, self._work.now)
        state.put("unadmitted", place, (first, *rest))

    def muted(self, place: Place) -> bool:
        """Count a sample; whether a port has been sampled enough, and is to be left alone for a while."""
        work = self._work
        started, count = self._sampled.get(place, (work.now, 0))
        if work.now - started >= WINDOW:
            started, count = work.now, 0
        self._sampled[place] = (started, count + 1)
        if count + 1 < ENOUGH or place in work.state.muted:
            return place in work.state.muted
        del self._sampled[place]
        until = work.now + work.settings.silence_time
        work.state.put("muted", place, until)
        work.state.put("clock", ("mute", "/".join(place)), until)
        return True

    def mute_over(self, key: str) -> None:
        """A port is sampled again."""
        self._work.state.put("muted", Place(*key.split("/", 1)), None)

    def forget(self, place: Place) -> None:
        """A port is no more."""
        self._sampled.pop(place, None)
        self._work.state.put("unadmitted", place, None)

    def tidy(self) -> None:
        """Forget counts whose window is over."""
        for place, (started, _) in list(self._sampled.items()):
            if self._work.now - started >= WINDOW:
                del self._sampled[place]


def sender(frame: bytes) -> bytes:
    """Who a frame says it is from: its IP source where there is one that means something, else its MAC.

    What a frame is too short to say is zeros.
    """
    said = frames.claimed(frame)
    if said.claimed_ip or said.claimed_mac:
        return said.claimed_ip or said.claimed_mac or b""
    kind = frame[12:14]
    if kind == _ETH_IPV4 and len(frame) >= 34:
        return frame[26:30]
    if kind == frames.ETH_IPV6 and len(frame) >= 54 and any(frame[22:38]):
        return frame[22:38]
    return frame[6:12].ljust(6, b"\0")


def shown(address: bytes) -> str:
    """An address as text, IP or MAC."""
    return addresses.format_mac(address) if len(address) == 6 else addresses.format_ip(address)
