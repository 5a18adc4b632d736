"""Telling the guests of a network where an address is."""

from __future__ import annotations

from .flows import Output
from .model import Interface
from .pipeline import flood_ports
from .wire import frames
from .work import Work


class Announcing:
    """Sends announcements, as gratuitous ARP and unsolicited neighbor advertisements."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def announce(self, interface: Interface) -> None:
        """Tell the guests of a network where an interface's addresses are (MAC), in the interface's name.

        For hypervisors that announce by RARP alone, which says nothing of IP addresses, and for a MAC that changed.
        """
        state = self._work.state
        packets = [frames.build_garp(interface.mac, ip) for ip in interface.ipv4]
        packets += [frames.build_unsolicited_na(interface.mac, ip) for ip in interface.ipv6]
        own = state.port_at(interface.location)
        for nve in state.members(interface.vni):
            if self._work.session(nve) is None:
                continue
            ports = set(flood_ports(state, nve, interface.vni))
            if own is not None and own.nve == nve:
                ports.discard(own.number)
            for packet in packets:
                self._work.send(nve, tuple(Output(port) for port in sorted(ports)), packet)
        self._work.report("interface.announced", interface=interface.id, packets=len(packets))
