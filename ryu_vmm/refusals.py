"""What was said and not believed: reported, without letting a flood of it become a flood of reports.

The first refusal of a kind at a port is reported at once, those after it as a number for each interval. Whoever goes on
beyond the rate of an offender is reported as that, and its switch only counts what it forges, for a while.
"""

from __future__ import annotations

from typing import NamedTuple

from . import addresses
from .admission import role
from .model import Place
from .tables import Drop, name_of
from .unadmitted import CAUSES, Samples, sender, shown
from .wire import frames
from .work import Work

#: Seconds over which the rate of an offender is taken.
WINDOW = 10.0
#: Kinds of refusals that are told apart at once; further ones are counted and no more.
KINDS = 4096

_FORGED: dict[int, str] = {
    Drop.SPOOFED_ARP: "names an address or a MAC that is not the port's",
    Drop.SPOOFED_ND: "names an address or a MAC that is not the port's",
    Drop.VLAN_TAGGED: "carries a VLAN tag",
    Drop.UNKNOWN_PORT: "comes from a port of nobody, and no network believes any port",
}


class _Since(NamedTuple):
    """Refusals of a kind since the last report: how many, and what the last of them said."""

    packets: int
    fields: dict[str, object]


class Refusals:
    """Reports of refused announcements, and the silencing of ports that go on."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._since: dict[tuple[str, Place, str], _Since] = {}
        self.samples = Samples(work)
        self._forged: dict[Place, tuple[float, int]] = {}  # start of the window, forgeries in it

    def forged(self, nve: str, in_port: int, cause: int, frame: bytes) -> None:
        """A switch has dropped a forgery and handed it over."""
        port = self._work.state.by_number.get((nve, in_port))
        if port is not None and cause in CAUSES:
            self._unadmitted(Place(nve, port), Drop(cause), frame)
            return
        if port is None or cause not in _FORGED:
            self._work.count("drop.unknown-port" if port is None else "drop.unexpected-packet-in")
            return
        place = Place(nve, port)
        interface = self._whose(place)
        if interface is not None:
            self.samples.note(place, interface, Drop(cause), sender(frame))
        self.refuse(place, frame, _FORGED[cause])

    def _unadmitted(self, place: Place, cause: Drop, frame: bytes) -> None:
        """A sample of what a port may not send, though nobody would believe anything by it."""
        interface = self._whose(place)
        self._work.count("admission.sampled")
        if interface is None or place in self._work.state.silenced:
            return
        said = sender(frame)
        self.samples.note(place, interface, cause, said)
        fields: dict[str, object] = {
            "nve": place.nve,
            "port": place.port,
            "interface": interface,
            "cause": name_of(cause),
            "reason": CAUSES[cause],
            "address": shown(said),
        }
        self.report("admission.dropped", place, CAUSES[cause], fields)
        self.samples.muted(place)

    def refuse(self, place: Place, frame: bytes, reason: str, offence: bool = True) -> None:
        """Report that an announcement from a port was not believed; ``offence``: nobody honest sends it."""
        self._work.count("announcement.refused")
        self.report("announcement.refused", place, reason, self._fields(place, frame, reason))
        if offence:
            self._offended(place)

    def report(self, kind: str, place: Place, reason: str, fields: dict[str, object]) -> None:
        """Report the first of a kind at a port at once, those after it as a number for each interval."""
        work, key = self._work, (kind, place, reason)
        if key in self._since:
            self._since[key] = _Since(self._since[key].packets + 1, fields)
        elif len(self._since) < KINDS:
            self._since[key] = _Since(0, {})
            work.report(kind, **fields, count=1)
        if ("refusals", "") not in work.state.clock:
            work.state.put("clock", ("refusals", ""), work.now + work.settings.report_interval)

    def _fields(self, place: Place, frame: bytes, reason: str) -> dict[str, object]:
        said = frames.claimed(frame)
        return {
            "nve": place.nve,
            "port": place.port,
            "interface": self._whose(place),
            "reason": reason,
            "frame": said.kind,
            "mac": said.mac and addresses.format_mac(said.mac),
            "claimed_mac": said.claimed_mac and addresses.format_mac(said.claimed_mac),
            "claimed_ip": said.claimed_ip and addresses.format_ip(said.claimed_ip),
        }

    def _whose(self, place: Place) -> str | None:
        interface = role(self._work.state, *place).interface
        return None if interface is None else interface.id

    def _offended(self, place: Place) -> None:
        work = self._work
        started, count = self._forged.get(place, (work.now, 0))
        if work.now - started >= WINDOW:
            started, count = work.now, 0
        self._forged[place] = (started, count + 1)
        if count + 1 <= work.settings.offender_rate * WINDOW or place in work.state.silenced:
            return
        until = work.now + work.settings.silence_time
        work.state.put("silenced", place, until)
        work.state.put("clock", ("silence", "/".join(place)), until)
        work.count("port.offender")
        fields = {"nve": place.nve, "port": place.port, "interface": self._whose(place)}
        work.report("port.offender", **fields, packets=count + 1, until=until)

    def silence_over(self, key: str) -> None:
        """The time is over for which a port's forgeries were only counted."""
        place = Place(*key.split("/", 1))
        self._forged.pop(place, None)
        self._work.state.put("silenced", place, None)
        self._work.report("port.heard-again", nve=place.nve, port=place.port, interface=self._whose(place))

    def resume(self) -> None:
        """After a restart: ports stay silenced, or unsampled, for the rest of their time."""
        state = self._work.state
        for kind, table in (("silence", state.silenced), ("mute", state.muted)):
            for place, until in table.items():
                state.put("clock", (kind, "/".join(place)), until)

    def follow(self, mark: int) -> int:
        """Forget what a port has done where the step in hand, since ``mark``, has given it to another interface, or
        taken it from one. Returns the next mark."""
        state = self._work.state
        for table, _, old, new in state.since(mark):
            if table == "interfaces" and (old and old.location) != (new and new.location):
                for one in (old, new):
                    if one is not None:
                        self._forget(one.location)
        return state.mark()

    def _forget(self, place: Place) -> None:
        state, key = self._work.state, "/".join(place)
        self._forged.pop(place, None)
        self.samples.forget(place)
        for table, kind in (("silenced", "silence"), ("muted", "mute")):
            state.put(table, place, None)
            state.put("clock", (kind, key), None)

    def interval_over(self) -> None:
        """Report what has been counted since the first reports, and forget what has not come again."""
        work = self._work
        for key, since in list(self._since.items()):
            if not since.packets:
                del self._since[key]
                continue
            work.report(key[0], **since.fields, count=since.packets)
            self._since[key] = _Since(0, {})
        for place, (started, _) in list(self._forged.items()):
            if work.now - started >= WINDOW:
                del self._forged[place]
        self.samples.tidy()
        if self._since:
            work.state.put("clock", ("refusals", ""), work.now + work.settings.report_interval)
