"""Names: what the domain name system is told of interfaces whose ``dns`` is set (section 4.2 of the draft).

A name stands for the addresses of all interfaces that carry it, IPv4 and IPv6. It is a function of the directory, read
off it after every step (:meth:`Names.follow`), whoever changed it: registration, removal, a move in which addresses
change. What differs from what was wanted before is handed to the publisher (naming.py) as an effect, and what the name
server has confirmed comes back as an event; until then a row is in doubt, and is handed over again at every start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .addresses import format_ip
from .effects import Publish
from .errors import Conflict
from .events import NameFailed, NamePublished
from .model import Published, Unpublished, Vm
from .work import Work

__all__ = ["Names"]

#: How often in a row the same has failed, when that is told: a name server may be away for long, and with it all names.
_TOLD = frozenset(8**n for n in range(12))


class Names:
    """What follows for names from every step, and handlers of what their publisher says."""

    def __init__(self, work: Work) -> None:
        self._work = work

    # --- what follows from a step -------------------------------------------------------------------------------------
    def follow(self) -> None:
        """Take in what the whole step has changed."""
        touched: dict[str, None] = {}
        for table, _, old, new in self._work.state.since(0):
            if table == "interfaces":
                for interface in (old, new):
                    if interface is not None and interface.dns is not None:
                        touched[interface.dns] = None
            elif table == "vms" and old is not None and new is not None and old.tenant != new.tenant:
                touched.update(dict.fromkeys(self._of_vm(new)))
        for name in touched:
            self._look(name)

    def _of_vm(self, vm: Vm) -> list[str]:
        interfaces = (self._work.state.interfaces.get(i) for i in vm.interfaces)
        return [i.dns for i in interfaces if i is not None and i.dns is not None]

    def _look(self, name: str) -> None:
        """Bring a name's row up to date, and have it published if its addresses have changed."""
        state = self._work.state
        holders = [state.interfaces[i] for i in state.named(name)]
        row = state.names.get(name)
        if holders:
            tenant = state.vms[holders[0].vm].tenant
        elif row is not None:
            tenant = row.tenant
        else:
            return
        wanted = tuple(sorted({ip for i in holders for ip in (*i.ipv4, *i.ipv6)}, key=lambda ip: (len(ip), ip)))
        if row is None and not wanted:
            return  # nothing of it was ever told
        if row is not None and row.wanted == wanted:
            state.put("names", name, replace(row, tenant=tenant))
            return
        # What was asked for in between may have reached the server or not: being back is no reason to be sure.
        told = None if row is None or row.told == wanted else row.told
        state.put("names", name, Published(wanted, told, self._work.now, tenant))
        state.put("unpublished", name, None)
        self._work.do(Publish(name, wanted))

    def check(self, vms: Iterable[str]) -> None:
        """Raise Conflict if a name of these VMs is used by a VM of somebody else."""
        state = self._work.state
        for vm in vms:
            owner = state.vms[vm].tenant
            for n, i in enumerate(state.vms[vm].interfaces):
                name = state.interfaces[i].dns
                for other in state.named(name) if name is not None else ():
                    if state.vms[state.interfaces[other].vm].tenant != owner:
                        message = f"the name {name} belongs to {other}, which is of another tenant"
                        raise Conflict(message, interface=other, field=f"interfaces.{n}.dns")

    # --- what the publisher says --------------------------------------------------------------------------------------
    def published(self, event: NamePublished) -> None:
        """A name server has confirmed what a name stands for."""
        state, name = self._work.state, event.name
        row = state.names.get(name)
        if row is None:
            return
        if event.addresses != row.wanted:  # something newer is on its way
            state.put("names", name, replace(row, told=event.addresses))
            return
        again = row.told == row.wanted
        state.put("names", name, replace(row, told=row.wanted) if row.wanted else None)
        state.put("unpublished", name, None)
        if not again:
            self._work.count("name.published")
            seconds = round(max(0.0, self._work.now - row.since), 6)
            self._work.report("name.published", name=name, seconds=seconds, **_facts(row))

    def failed(self, event: NameFailed) -> None:
        """No name server has taken what a name is to stand for."""
        state, name, now = self._work.state, event.name, self._work.now
        row = state.names.get(name)
        self._work.count("name.failed")
        if row is None or event.addresses != row.wanted:
            return
        before = state.unpublished.get(name)
        times = 1 if before is None else before.times + 1
        retry = None if event.retry is None else now + event.retry
        state.put("unpublished", name, Unpublished(event.why, now, times, retry))
        if event.retry is None and not row.wanted:
            # It cannot be removed by us, so it was never there by us.
            state.put("names", name, None)
            state.put("unpublished", name, None)
        if before is None or before.why != event.why or times in _TOLD:
            self._work.report("name.failed", name=name, why=event.why, times=times, retry=event.retry, **_facts(row))

    # --- start --------------------------------------------------------------------------------------------------------
    def resume(self) -> None:
        """After a restart: whatever has not been confirmed is handed over again."""
        state = self._work.state
        for name in sorted(state.unconfirmed()):
            self._work.do(Publish(name, state.names[name].wanted))


def _facts(row: Published) -> dict[str, object]:
    """What every entry of the event stream says of a name."""
    facts: dict[str, object] = {"addresses": [format_ip(ip) for ip in row.wanted]}
    return facts if row.tenant is None else {**facts, "tenant": row.tenant}
