"""Tasks that move to addresses of their destination's subnet, and what becomes of the old ones (section 4.2).

The new address is allotted when the move is opened, is the task's from steering on, and from then on the source NVE
does with packets for the old one what the task's policy says: drop them, answer that it cannot be reached, or forward
them, for a set time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from . import addresses
from .errors import Conflict, InvalidInput
from .events import MoveRequested
from .model import Addressing, Answer, Change, Connections, Interface, Leave, Left, Move, Place, Subnet
from .routing import is_sir
from .work import Work

#: So many addresses of a subnet are tried, from its first one on, beside the one with the task's own host part.
_TRIES = 1 << 16


def leave_of(work: Work, interface: Interface) -> Leave:
    """What the source does with packets for what an interface has left."""
    vm = work.state.vms[interface.vm]
    return vm.leave or work.state.networks[interface.vni].policy.leave


def changes(work: Work, interfaces: list[Interface], event: MoveRequested) -> tuple[Change, ...]:
    """The addresses that a move will change.

    Raises:
        InvalidInput: they are to change, and there is none that could.
        Conflict: the destination has no subnet, or no free address, of the family.
    """
    if event.address is Addressing.KEEP:
        return ()
    found: list[Change] = []
    for interface in interfaces:
        network = work.state.networks[interface.vni]
        for old in (*interface.ipv4, *interface.ipv6):
            home = next((s for s in network.subnets if old in s), None)
            if home is None or home.nve == event.to or is_sir(work.state, interface, old):
                continue
            taken = {change.new for change in found}
            found.append(Change(interface.id, old, _allot(work, interface, old, home, event.to, taken)))
    if not found:
        message = f"no address of {event.vm} belongs to the subnet of an NVE, so none can change"
        raise InvalidInput(message, field="address", vm=event.vm)
    return tuple(found)


def connections(work: Work, interfaces: list[Interface], event: MoveRequested, changed: bool) -> Connections:
    """What becomes of the task's connections. InvalidInput: they cannot outlive the change of their address."""
    wanted = event.connections or (Connections.DROP if changed else Connections.KEEP)
    forwarded = all(leave_of(work, interface).answer is Answer.FORWARD for interface in interfaces)
    if changed and wanted is not Connections.DROP and not forwarded:
        message = f"connections cannot be {wanted}: their address changes, and what is sent to it is not forwarded"
        raise InvalidInput(message, field="connections", vm=event.vm)
    return wanted


def _allot(work: Work, interface: Interface, old: bytes, home: Subnet, nve: str, taken: set[bytes]) -> bytes:
    state = work.state
    domain = state.domain(interface.vni)
    left = {gone.address for gone in state.left.values() if gone.vni in domain and gone.interface != interface.id}
    # Whoever asks for the name of another task would come to this one.
    named = state.still_given_out(interface.dns)
    gateways = {a for v in domain if (g := state.gateway(v)) for a in (g.ipv4, g.ipv6)}
    subnets = [s for s in state.networks[interface.vni].subnets if s.nve == nve and len(s.prefix) == len(old)]
    for subnet in subnets:
        for address in _candidates(subnet, old):
            if address in taken or address in gateways or address in named or address in left:
                continue
            if is_sir(state, interface, address) or any((each, address) in state.sharing for each in domain):
                continue
            # What an earlier move of its own gives up it may have again.
            if all(i == interface.id and move is not None for i, move in state.claims(interface.vni, address)):
                return address
    family = "IPv4" if len(old) == 4 else "IPv6"
    what = "free address in its subnet" if subnets else "subnet"
    raise Conflict(f"NVE {nve} has no {family} {what} for {interface.id}", nve=nve, interface=interface.id)


def _candidates(subnet: Subnet, like: bytes) -> Iterator[bytes]:
    """Addresses of a subnet: the one with the same host part first."""
    width, bits = len(subnet.prefix), 8 * len(subnet.prefix) - subnet.length
    first, size = int.from_bytes(subnet.prefix, "big"), 1 << bits
    last = size - 1 if width == 4 and bits > 1 else size  # of IPv4 that is the broadcast address
    same = int.from_bytes(like, "big") % size
    for host in (same, *range(1, min(last, _TRIES))):
        if 0 < host < last:
            yield (first + host).to_bytes(width, "big")


# --- as moves go on ---------------------------------------------------------------------------------------------------
def arrived(work: Work, move: Move, interface: Interface, place: Place) -> Interface:
    """The interface as it is from steering on; what it had before is suspended where it was.

    Only what it still has changes: it may have been registered with other addresses since the move was opened.
    """
    state = work.state
    for left in state.left_by(interface.id):
        if left.nve == place.nve and left.ila:
            forget(work, left.key)
    mine = {
        change.old: change.new
        for change in move.changes
        if change.interface == interface.id
        and change.old in (*interface.ipv4, *interface.ipv6)
        and state.owner(interface.vni, change.new) in (None, interface.id)
    }
    if not mine:
        return replace(interface, location=place, epoch=interface.epoch + 1, since=work.now, pending=None)
    leave = leave_of(work, interface)
    for old, new in mine.items():
        taken(work, interface, new)
        # Correspondents that have not heard send to where it was, all others to whose subnet has it, once no route of
        # its own leads elsewhere: the two differ if an earlier move had kept the address.
        homes = {s.nve for s in state.networks[interface.vni].subnets if old in s}
        for nve in sorted({interface.location.nve, *homes} & state.nves.keys() - {place.nve}):
            suspend(work, Left(nve, interface.vni, old, interface.id, leave.answer, 0.0), leave)
        work.report(
            "task.readdressed",
            move=move.id,
            vm=interface.vm,
            interface=interface.id,
            old=addresses.format_ip(old),
            new=addresses.format_ip(new),
            source=interface.location.nve,
            destination=place.nve,
            answer=leave.answer.value,
            seconds=leave.seconds,
        )
    return replace(
        interface,
        location=place,
        epoch=interface.epoch + 1,
        since=work.now,
        pending=None,
        ipv4=tuple(dict.fromkeys(mine.get(a, a) for a in interface.ipv4)),
        ipv6=tuple(dict.fromkeys(mine.get(a, a) for a in interface.ipv6)),
    )


def suspend(work: Work, left: Left, leave: Leave) -> None:
    """From now on, and for the time that the policy says, packets for an address are dealt with where it was."""
    until = work.now + leave.seconds
    work.state.put("left", left.key, replace(left, until=until))
    work.state.put("clock", ("left", left.key), until)


def settled(work: Work, move: Move) -> None:
    """A move has settled: what still comes under the source's locator is dealt with as the policy says."""
    state = work.state
    for leg in move.legs:
        interface = state.interfaces.get(leg.interface)
        source = state.nves.get(leg.src.nve)
        if interface is None or source is None or source.locator is None or interface.location.nve == source.name:
            continue
        leave = leave_of(work, interface)
        for address in interface.ipv6:
            if is_sir(state, interface, address):
                gone = Left(leg.src.nve, leg.vni, address, interface.id, leave.answer, 0.0, ila=True)
                suspend(work, gone, leave)


def forget(work: Work, key: str) -> None:
    """The time of an address that was left is over, or somebody has it again."""
    work.state.put("left", key, None)
    work.state.put("clock", ("left", key), None)


def taken(work: Work, interface: Interface, address: bytes) -> None:
    """An address is an interface's: nobody has left it any more, in all networks that are routed together."""
    domain = work.state.domain(interface.vni)
    for left in work.state.left_of(address):
        if left.vni in domain and not (left.ila and left.interface == interface.id):
            forget(work, left.key)


def registered(work: Work, interface: Interface) -> None:
    """An interface was registered with these addresses: what it has, and what it has no more, it has not left."""
    for address in (*interface.ipv4, *interface.ipv6, *interface.shared):
        taken(work, interface, address)
    for left in work.state.left_by(interface.id):
        if left.vni != interface.vni or (left.ila and left.address not in interface.ipv6):
            forget(work, left.key)


def joined(work: Work) -> None:
    """Networks are routed together that were not before: what is somebody's there was not left here."""
    for left in list(work.state.left.values()):
        if not left.ila and work.state.owner(left.vni, left.address) is not None:
            forget(work, left.key)


def resume(work: Work) -> None:
    """After a restart: addresses that were left have their time, as before."""
    for key, left in work.state.left.items():
        work.state.put("clock", ("left", key), left.until)
