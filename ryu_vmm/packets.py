"""Packets that NVEs hand to the NVA: announcements, signs of life, and the lost ones; resolver.py has the questions."""

from __future__ import annotations

from dataclasses import replace

from .admission import Role, heard_about, role, speaking, watching
from .announcing import Announcing
from .claims import ANNOUNCEMENTS, CLAIMS, claims_own, speaks_for_itself
from .effects import SendPacket
from .errors import Conflict, DecodeError, NotFound
from .events import PacketSeen, ThawRequested
from .flapping import thaw
from .flows import Action, Output
from .hearing import Hearing
from .ledger import Accounts
from .mobility import MoveEvent
from .model import Admit, Held, Interface, Leg, Move, Network, Place, Port, Redirect, Trust, Vm
from .moves import Moves
from .neighbors import Neighbors
from .paths import path, target, tunnel_to
from .probes import WARMING, Prober
from .refusals import Refusals
from .resolver import Resolver
from .router import Router
from .sharing import Sharing, may_take
from .signs import Sign, sign_of
from .tables import Why, move_of, why_of
from .tunnels import Tunnels
from .unasked import Unasked
from .watching import Watch
from .wire import frames
from .wire.frames import Kind
from .work import Work


class Packets:
    """Handlers of packets, by the reason that the flow which handed them over gives in its cookie."""

    def __init__(
        self, work: Work, moves: Moves, prober: Prober, tunnels: Tunnels, accounts: Accounts, announcing: Announcing
    ) -> None:
        self._work = work
        self._moves = moves
        self._prober = prober
        self._tunnels = tunnels
        self._accounts = accounts
        self.refusals = Refusals(work)
        self._router = Router(work)
        self.hearing = Hearing(work)
        self.sharing = Sharing(work)
        self.resolver = Resolver(work, self.hearing, self.sharing)
        self._announcing = announcing
        self.neighbors = Neighbors(work)
        self.unasked = Unasked(work, moves)
        self._watch = Watch(work, moves, self.unasked)

    def seen(self, event: PacketSeen) -> None:
        """Take a packet; whatever is wrong with it is counted by cause and it is dropped."""
        state = self._work.state
        name, purpose = state.by_dpid.get(event.dpid), why_of(event.cookie)
        if name is None or purpose is None:
            self._work.count("drop.foreign-packet-in")
            return
        why, about = purpose
        self._work.count(f"packet_in.{why.name.lower()}")
        self.hearing.note(name, event.in_port, why, event.frame)
        try:
            match why:
                case Why.RESOLVE:
                    self.resolver.asked(name, event)
                case Why.ANSWER | Why.ADVERTISE:
                    pass  # its NVE has answered; that the guest was heard is all there is to it
                case Why.LIFE | Why.ANNOUNCE:
                    self._heard(name, event, why, about)
                case Why.MISS:
                    self._missed(name, event.frame, about)
                case Why.PROBE:
                    nonce = frames.parse_probe(event.frame)
                    if nonce == WARMING or self._tunnels.returned(name, nonce, event.tun_src):
                        return
                    number = self._prober.returned(name, nonce)
                    if number is not None:
                        self._moves.fire(number, MoveEvent.READY, "destination ready, all paths proven")
                case Why.HOLD:
                    self._hold(about, event.frame)
                case Why.STALE:
                    self._stale(name, event.frame, about)
                case Why.REDIRECT:
                    self._sampled(name, event, about)
                case Why.ROUTER | Why.EXPIRED_TTL | Why.TOO_BIG | Why.UNREACHABLE:
                    self._router.seen(name, event, why, about)
                case Why.HOP:
                    self.neighbors.advertised(name, event.frame)
                case Why.DROP:
                    self.refusals.forged(name, event.in_port, about, event.frame)
                case _:
                    self._work.count("drop.unexpected-packet-in")
        except DecodeError as error:
            self._work.count(f"drop.{error.cause}")
            port = self._work.state.by_number.get((name, event.in_port))
            if why in (Why.LIFE, Why.ANNOUNCE) and port is not None:
                self.refusals.refuse(Place(name, port), event.frame, f"is malformed: {error.message}")

    # --- time and those who decide ------------------------------------------------------------------------------------
    def watch(self, number: int) -> None:
        """It is time to ask the source of a watched move."""
        self._watch.time(number)

    def synchronised(self, nve: str) -> None:
        """An NVE is in sync: what it is to be asked may be asked."""
        self._watch.is_back(nve)

    def resume(self) -> None:
        """After a restart: go on watching, and leave alone who is."""
        self._watch.resume()
        self.refusals.resume()

    def thaw(self, event: ThawRequested) -> Vm:
        """Let announcements move a VM's interfaces again. Raises NotFound."""
        vm = self._work.state.vms.get(event.vm)
        if vm is None:
            raise NotFound(f"there is no VM {event.vm}", vm=event.vm)
        for interface in vm.interfaces:
            thaw(self._work, interface, "request")
        return vm

    # --- announcements and signs of life ------------------------------------------------------------------------------
    def is_news(self, dpid: int, in_port: int) -> bool:
        """Whether it is news that a port's guest has asked what its NVE has answered."""
        nve = self._work.state.by_dpid.get(dpid)
        return nve is not None and self.hearing.is_new(nve, in_port)

    def is_home(self, dpid: int, in_port: int, frame: bytes) -> bool:
        """Whether a sign of life says nothing new: its port is where the directory has the guest already."""
        state = self._work.state
        nve = state.by_dpid.get(dpid)
        if nve is None or frame[12:14] == frames.ETH_RARP:
            return False  # RARP is a question, too
        home = state.by_place.get(Place(nve, state.by_number.get((nve, in_port), "")))
        return home is not None and not may_take(state.interfaces[home], frame)

    def _heard(self, nve: str, event: PacketSeen, why: Why, about: int) -> None:
        state = self._work.state
        port = state.by_number.get((nve, event.in_port))
        if port is None:
            self._work.count("drop.unknown-port")
            return
        place = Place(nve, port)
        kind = frames.classify(event.frame)
        bound = role(state, nve, port)
        interface = bound.interface
        if kind is Kind.RARP_REQUEST and interface is not None and bound.role is Role.HOME:
            self.resolver.asked_by_mac(nve, event, interface)
        if interface is None:
            self._stranger(place, event.frame, kind)
            return
        if bound.role is Role.HOME or why is Why.LIFE:
            self.sharing.heard(interface, event.frame, kind)
        if bound.role is Role.HOME:
            return  # the same epoch again changes nothing
        if why is Why.LIFE and about != heard_about(interface):
            self._work.count("announcement.late")
            if kind in ANNOUNCEMENTS:
                self.refusals.refuse(place, event.frame, "comes late: of an epoch that is over", offence=False)
            return
        if why is Why.ANNOUNCE and not claims_own(speaking(state, interface), event.frame, kind):
            # The port's own flows, which check this, were not there yet.
            self.refusals.refuse(place, event.frame, "names an address or a MAC that is not the port's")
            return
        checked = state.networks[interface.vni].policy.admit is Admit.ADDRESSES
        if why is Why.LIFE and checked and not speaks_for_itself(speaking(state, interface), event.frame, kind):
            self._work.count("announcement.foreign")  # and reported, once the port's flows have dropped it
            return
        by = kind.name.lower().replace("_", "-") if kind is not Kind.OTHER else "data"
        homeless = state.has_gone(interface.location)
        watched = watching(state, state.ports[place])
        if bound.role is Role.EXPECTED:
            self._watch.expected(interface, event.frame, kind, by)
        elif watched is not None and not homeless and why is Why.LIFE:
            self._watch.heard(watched, interface, event.frame, kind, by)
        elif not homeless and kind in ANNOUNCEMENTS and sign_of(interface, event.frame, kind) is Sign.ITSELF:
            self._work.count("sign.by-itself")
        elif homeless or (kind in ANNOUNCEMENTS and why is Why.LIFE):  # else its epoch is not known
            self._believe(interface, place, by, event.frame)
        if kind is Kind.RARP_REQUEST and state.interfaces[interface.id].location == place:
            self._announcing.announce(state.interfaces[interface.id])

    def _stranger(self, place: Place, frame: bytes, kind: Kind) -> None:
        """An announcement from a port of nobody: believed where the network of the one VM it fits says so."""
        state = self._work.state
        mac = frame[6:12]
        trusting: list[Network] = [n for n in state.networks.values() if n.policy.announcements is Trust.ANY]
        owners = [state.by_mac[(n.vni, mac)] for n in trusting if (n.vni, mac) in state.by_mac]
        fitting = [i for i in owners if claims_own(state.interfaces[i], frame, kind)]
        if kind not in ANNOUNCEMENTS:  # any ARP will do for a VM that is nowhere
            fitting = [i for i in fitting if state.has_gone(state.interfaces[i].location)]
            if not fitting and kind not in CLAIMS:
                self._work.count("drop.unbound-port")
                return
        if len(fitting) == 1:
            found = state.interfaces[fitting[0]]
            if not state.has_gone(found.location) and sign_of(found, frame, kind) is Sign.ITSELF:
                self._work.count("sign.by-itself")
                return
            self._believe(state.interfaces[fitting[0]], place, kind.name.lower().replace("_", "-"), frame)
            if kind is Kind.RARP_REQUEST:
                self._announcing.announce(state.interfaces[fitting[0]])
            return
        reason = "fits no VM of a network that believes any port" if not fitting else "fits VMs of several networks"
        self.refusals.refuse(place, frame, reason)

    def _believe(self, interface: Interface, place: Place, by: str, frame: bytes) -> None:
        """Move an interface to where it announced itself, unless it flaps."""
        if interface.location == place:
            return
        source_up = not self._work.state.has_gone(interface.location)
        try:
            move = self.unasked.announced(interface, place, by)
        except Conflict as error:  # nobody to tell; the next announcement may find room
            self.refusals.refuse(place, frame, error.message, offence=False)
            return
        if move is None:
            self.refusals.refuse(place, frame, "is of an interface that flaps and is frozen", offence=False)
        elif source_up:
            self._watch.begin(move.id)

    # --- pull, hold, stale --------------------------------------------------------------------------------------------
    def _missed(self, nve: str, frame: bytes, vni: int) -> None:
        """An NVE asks where a destination is: install it, and bring this packet there."""
        state = self._work.state
        key = state.mac_owner(vni, frame[0:6])
        session = state.sessions.get(nve)  # in sync or not: it can send
        if key is None or session is None or session.tunnel is None:
            self._work.count("drop.unknown-destination")
            return
        state.put("pulled", (nve, key), True)
        self._bring(nve, state.interfaces[key], frame, vni)

    def _leg(self, about: int) -> tuple[Move, Leg, Interface] | None:
        """What tables.about_leg says, if it is still there."""
        move, index = self._work.state.moves.get(move_of(about)), about >> 32
        if move is None or index >= len(move.legs):
            return None
        interface = self._work.state.interfaces.get(move.legs[index].interface)
        return None if interface is None else (move, move.legs[index], interface)

    def _hold(self, about: int, frame: bytes) -> None:
        """A packet came to a move's destination before the VM's port did."""
        found = self._leg(about)
        if found is None or frame[0:6] not in self._work.state.macs(found[2]):
            self._work.count("drop.hold-closed")
            return
        self._give(found[2], frame, found[0].id)

    def _give(self, interface: Interface, frame: bytes, number: int) -> None:
        """Send a frame out of the port of an interface, or have it wait for that port."""
        state = self._work.state
        port = self._way_out(interface)
        waiting = state.held.get(interface.id)
        if waiting is None and port is not None:
            self._work.send(port.nve, (Output(port.number),), frame)
            return
        waiting = waiting or Held(number)
        if len(waiting.frames) < self._work.settings.hold_packets:
            waiting = replace(waiting, frames=(*waiting.frames, frame))
        else:
            waiting = replace(waiting, lost=waiting.lost + 1)
        state.put("held", interface.id, waiting)

    def _way_out(self, interface: Interface) -> Port | None:
        """The port that frames for an interface can be sent out of now, wherever it is."""
        port = self._work.state.port_at(target(self._work.state, interface))
        return port if port is not None and port.nve in self._work.state.sessions else None

    def release(self) -> None:
        """Let go what waits for a port that is there by now, in order and before anything newer; called in each step.

        If a move has been rolled back, that is the port at its source; while that NVE is away, it still takes what
        comes from the destination by the tunnel. What waits for a port that nothing will bring any more is dropped.
        """
        state = self._work.state
        for key, waiting in list(state.held.items()):
            interface = state.interfaces.get(key)
            port = None if interface is None else self._way_out(interface)
            back = interface is not None and port is None and self._brought_back(interface, waiting)
            if back:
                pass
            elif port is not None:
                out: tuple[Action, ...] = (Output(port.number),)
                self._work.first += [SendPacket(self._work.dpid(port.nve), out, frame) for frame in waiting.frames]
            elif self._comes(key) or waiting.move in state.returning:
                continue
            else:
                self._work.count("drop.hold-closed", len(waiting.frames))
            state.put("held", key, None)
            lost = waiting.lost + (0 if back or port is not None else len(waiting.frames))
            self._accounts.held(waiting.move, len(waiting.frames), lost)

    def _comes(self, interface: str) -> bool:
        """Whether an open move brings an interface, and does not only say where one is served that is off."""
        moves = list(self._work.state.moves_of(interface))
        return bool(moves) and not moves[-1][0].off

    def _brought_back(self, interface: Interface, waiting: Held) -> bool:
        """Whether packets of a move that was rolled back could be sent to its source, which cannot be told anything."""
        state = self._work.state
        move = state.moves.get(waiting.move)
        if move is None or next(state.moves_of(interface.id), None) is not None:
            return False
        if interface.location.nve in state.sessions or self._work.session(move.destination) is None:
            return False
        for frame in waiting.frames:
            self._bring(move.destination, interface, frame, interface.vni)
        return True

    def _stale(self, nve: str, frame: bytes, about: int) -> None:
        """A packet reached the source of a cold move after all: it is brought on, and those after it redirected."""
        found = self._leg(about)
        if found is None or not found[0].open or frame[0:6] not in self._work.state.macs(found[2]):
            self._work.count("drop.hold-closed")
            return
        move, leg, interface = found
        self._bring(nve, interface, frame, leg.mark)
        if move.redirect is Redirect.NONE:
            self._moves.late_redirect(move.id)

    def _sampled(self, nve: str, event: PacketSeen, number: int) -> None:
        """A packet was redirected after all had confirmed: whoever sent it is put right."""
        state = self._work.state
        move = state.moves.get(number)
        if move is None or not move.open:
            return
        if not move.sampling:
            return  # taken while the one before it was on its way here
        sender = self._sender(event, move)
        if sender is None:
            self._work.count("drop.unknown-tunnel-source")
            return
        self._accounts.corrected(number, sender)
        self._moves.sample(number, False)
        self._work.report("correspondent.stale", move=number, nve=sender, source=nve)
        if self._work.session(sender) is not None:
            self._work.read_back(sender)

    def _sender(self, event: PacketSeen, move: Move) -> str | None:
        """The NVE that sent a redirected packet: by the tunnel's address, or by that of its guest if it came by ILA."""
        state = self._work.state
        if event.tun_src is not None:
            return next((n.name for n in state.nves.values() if event.tun_src in (n.ipv4, n.ipv6)), None)
        if event.frame[12:14] != b"\x86\xdd" or len(event.frame) < 38:
            return None
        guests = (state.owner(leg.vni, event.frame[22:38]) for leg in move.legs)
        return next((state.interfaces[guest].location.nve for guest in guests if guest is not None), None)

    def _bring(self, nve: str, interface: Interface, frame: bytes, vni: int) -> None:
        """Bring a packet that an NVE had no flow for to where its receiver is; ``vni``: what it travels under."""
        state = self._work.state
        place = target(state, interface)
        if place.nve == nve:  # it has come here since
            self._give(interface, frame, self._newest(interface))
            return
        session, way = state.sessions.get(nve), path(state, nve, place.nve)
        if session is not None and session.tunnel is not None and way is not None:
            self._work.send(nve, tunnel_to(way, vni, session.tunnel), frame)

    def _newest(self, interface: Interface) -> int:
        return max((move.id for move, _ in self._work.state.moves_of(interface.id)), default=0)
