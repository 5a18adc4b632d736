"""What NVEs report: their coming and going, ports, barriers, errors, and their flows read back."""

from __future__ import annotations

from dataclasses import replace

from . import prepull, replies, strangers
from .adopting import adopt
from .differences import difference
from .domains import Offer
from .effects import Answer, Disconnect, Program, ReadFlows
from .errors import Conflict
from .events import (
    BarrierReplied,
    ConnectionRefused,
    FlowExpired,
    FlowRefused,
    FlowsRead,
    MetersRead,
    NveConnected,
    NveDisconnected,
    PacketsShed,
    PortChanged,
    PortInfo,
    PortsRead,
)
from .flows import Flow, FlowChange, FlowKey, FlowStats
from .ledger import Accounts
from .limits import SHARED_SLOT
from .mobility import MoveEvent
from .model import Fault, Move, Place, Port, Redirect, Session
from .moves import Moves
from .ovstext import describe
from .packets import Packets
from .pipeline import desired, is_tunnel_to_tunnel, wanted
from .probes import Prober
from .quarantine import Quarantine
from .recovery import Recovery
from .slots import keep_only, release, slot_for
from .tables import COOKIE_MASK, COOKIE_OURS
from .tunnels import Tunnels
from .whose import error
from .work import Work

#: Readings of all flows in a row that changes may overtake, until these wait for the next one.
OVERTAKEN_MOST = 3
#: Seconds that a switch which keeps refusing flows is left alone at the most.
RESYNC_PAUSE_MAX = 60.0
#: Generations that are recorded as given when none of those before is left.
GENERATIONS_AHEAD = 4096


def _certified(names: tuple[str, ...] | None) -> dict[str, object]:
    return {} if names is None else {"certificate": list(names)}


class Switches:
    """Handlers of switch events other than packets."""

    def __init__(
        self,
        work: Work,
        moves: Moves,
        recovery: Recovery,
        accounts: Accounts,
        packets: Packets,
        prober: Prober,
        tunnels: Tunnels,
        quarantine: Quarantine,
    ) -> None:
        self._work = work
        self._moves = moves
        self._recovery = recovery
        self._accounts = accounts
        self._packets = packets
        self._prober = prober
        self._tunnels = tunnels
        self._quarantine = quarantine
        self._asked_at: dict[str, int] = {}
        self._overtaken: dict[str, int] = {}  # NVE -> readings in a row that a change has overtaken

    # --- coming and going --------------------------------------------------------------------------------------------
    def connected(self, event: NveConnected) -> None:
        """A switch is there: take its ports, then read its flows back before changing any."""
        state = self._work.state
        name = state.by_dpid.get(event.dpid)
        if name is None:
            strangers.unregistered(self._work, event, _certified(event.names))
            return
        self.disconnected(NveDisconnected(event.dpid))  # if nobody has said so
        state.put("strangers", event.dpid, None)
        if not state.nves[name].is_of(event.names):  # it waited as a stranger, or is asked for only now
            self._expel(name, event.names)
            return
        shown = {port.name: port for port in event.ports}
        keep_only(state, name, shown)
        self._ports_are(name, {**dict.fromkeys(state.ports_of(name)), **shown})
        for move in list(state.open_moves()):
            for leg in move.legs:
                if leg.src.nve == name and state.port_at(leg.src) is None:
                    self._moves.departed(leg.src)  # while nobody was looking
        programmed = state.generations.get(name, (0, 0))[0]
        state.put("generations", name, (programmed, programmed))
        self._quarantine.connected(name)
        state.put("sessions", name, Session(name, None, False, event.meters, event.names))
        self._follow_tunnel(name)
        self._work.report("nve.connected", nve=name, ports=len(event.ports), **_certified(event.names))
        strangers.doubt(self._work, name, event)
        self.resync(name)

    def admits(self, dpid: int, names: tuple[str, ...] | None) -> bool:
        """Whether a connection whose certificate has these names (None: no TLS) may have that datapath id."""
        name = self._work.state.by_dpid.get(dpid)
        return name is None or self._work.state.nves[name].is_of(names)

    def connection_refused(self, event: ConnectionRefused) -> None:
        """A connection was not taken for the switch it says it is; whoever is there already stays."""
        self._work.count(f"nve.{event.why}", event.times)
        self._report_refusal(event.why, event.dpid, event.names, peer=event.peer, times=event.times)

    def _report_refusal(self, why: str, dpid: int, names: tuple[str, ...] | None, **more: object) -> None:
        nve = self._work.state.by_dpid.get(dpid)
        fields: dict[str, object] = {"nve": nve, "dpid": f"{dpid:016x}", **more}
        if why == "impostor":
            known = self._work.state.nves.values()
            fields["certificate"] = list(names or ())
            fields["certificate_of"] = next((n.name for n in known if names is not None and n.is_of(names)), None)
        self._work.report(f"nve.{why}", **fields)

    def _expel(self, name: str, names: tuple[str, ...] | None) -> None:
        """The switch that is connected as this NVE is another one."""
        dpid = self._work.dpid(name)
        self._work.count("nve.impostor")
        self._report_refusal("impostor", dpid, names, times=1)
        self.disconnected(NveDisconnected(dpid))
        self._work.do(Disconnect(dpid))

    def adopt(self, name: str) -> None:
        """An NVE was registered: if its switch is waiting, take it in; if its tunnel port changed, follow."""
        state = self._work.state
        dpid = state.nves[name].dpid
        if dpid in state.strangers:
            self.connected(state.strangers[dpid])
        elif name in state.sessions:
            if state.nves[name].is_of(state.sessions[name].names):
                self._follow_tunnel(name)
            else:
                self._expel(name, state.sessions[name].names)

    def let_go(self, name: str) -> None:
        """An NVE is being removed: its switch, if connected, loses our flows and waits to be registered again."""
        state = self._work.state
        nve, session = state.nves.get(name), state.sessions.get(name)
        if nve is None or session is None:
            return
        self._tunnels.gone(name)
        if session.synced:
            self.program(name, difference(desired(state, name), {}))
        ports = [state.ports[(name, port)] for port in state.ports_of(name)]
        told = tuple(PortInfo(p.number, p.name, p.up) for p in ports)
        state.put("strangers", nve.dpid, NveConnected(nve.dpid, told, session.meters, session.names))

    def disconnected(self, event: NveDisconnected) -> None:
        """A switch's control channel is gone; it goes on forwarding as last told (fail static)."""
        self._work.state.put("strangers", event.dpid, None)
        self._asked_at.clear()  # who is not answered now never is; others ask again
        name = self._work.state.by_dpid.get(event.dpid)
        if name is None or name not in self._work.state.sessions:
            return
        self._work.state.put("sessions", name, None)
        self._tunnels.gone(name)
        self._work.report("nve.disconnected", nve=name)
        self._recovery.lost(name)
        for number in self._accounts.lose(name):
            self.account_closes(number)

    def _tunnel(self, name: str) -> int | None:
        """The tunnel port's number: the one named at registration, else the one whose name says vxlan."""
        state = self._work.state
        wanted = state.nves[name].tunnel_port
        if wanted:
            return self._number(name, wanted)
        ports = [state.ports[(name, p)] for p in state.ports_of(name)]
        return min((p.number for p in ports if p.name.lower().startswith("vxlan")), default=None)

    def _number(self, name: str, port: str | None) -> int | None:
        found = self._work.state.ports.get((name, port or ""))
        return None if found is None else found.number

    def _follow_tunnel(self, name: str) -> None:
        """Which ports lead to the underlay, by what was registered and what the switch shows."""
        state, nve, session = self._work.state, self._work.state.nves[name], self._work.state.sessions[name]
        routed, ila = self._number(name, nve.routed_port), self._number(name, nve.ila_port)
        now = replace(session, tunnel=self._tunnel(name), routed=routed, ila=ila)
        state.put("sessions", name, now)
        self._tunnels.ports_are(name)
        if now != session:
            self._tunnels.changed(name)
        offer = Offer(routed is not None, ila is not None)
        state.put("offers", name, offer if any(offer) else None)

    def port_changed(self, event: PortChanged) -> None:
        """A port appeared, changed or went."""
        state, port = self._work.state, event.port
        name = state.by_dpid.get(event.dpid)
        if name is None:
            if event.dpid in state.strangers:
                stranger = state.strangers[event.dpid]
                known = tuple(p for p in stranger.ports if p.name != port.name)
                stranger = replace(stranger, ports=known if event.gone else (*known, port))
                state.put("strangers", event.dpid, stranger)
            return
        told: dict[str, PortInfo | None] = {port.name: None if event.gone else port}
        other = state.by_number.get((name, port.number))
        if other is not None and other != port.name and not event.gone:
            told[other] = None  # its number says that it has gone
        self._ports_are(name, told)

    def _ports_are(self, name: str, told: dict[str, PortInfo | None]) -> None:
        """Take in what is known of some ports of an NVE (None: gone), and what follows for moves and accounts."""
        state = self._work.state
        places = [Place(name, port) for port in told]
        was_up = {place for place in places if state.port_at(place) is not None}
        for port, info in sorted(told.items(), key=lambda item: item[1] is not None):  # those that go make room
            if info is None:
                release(state, name, port)
                state.put("ports", (name, port), None)
                continue
            slot = slot_for(state, name, port, info.number)
            if slot == SHARED_SLOT and getattr(state.ports.get((name, port)), "slot", 0) != slot:
                self._work.report("port.crowded", nve=name, port=port)
            state.put("ports", (name, port), Port(name, port, info.number, info.up, slot))
        if name in state.sessions:
            self._follow_tunnel(name)
            if any(state.is_tunnel(place) for place in places):
                self._tunnels.changed(name)  # something about it has, if not its number
        for place in places:
            if place in state.ports:
                self._accounts.queues.appeared(place)
            else:
                self._accounts.queues.gone(place)
                self._packets.refusals.samples.forget(place)
            home, is_up = state.by_place.get(place), state.port_at(place) is not None
            if place in was_up and not is_up:
                expected = self._moves.departed(place)
                if home is not None:
                    # A meter, so that what it loses is known exactly; where it was before may still count by it.
                    state.put("gone", home, state.gone.get(home, state.free_slot()))
                    self._work.report("port.gone", nve=name, port=place.port, interface=home, expected=expected)
            elif is_up and place not in was_up and home is not None:
                if all(move.requested for move, _ in state.moves_of(home)):
                    state.put("gone", home, None)
                self._work.report("port.up", nve=name, port=place.port, interface=home)
                self._moves.returned(place)

    # --- acknowledgements ---------------------------------------------------------------------------------------------
    def barrier(self, event: BarrierReplied) -> None:
        """Everything up to a generation is in the switch's tables."""
        state = self._work.state
        name = state.by_dpid.get(event.dpid)
        if name is None or name not in state.sessions:
            return
        programmed, realised = state.generations.get(name, (0, 0))
        if event.generation > realised:
            state.put("generations", name, (programmed, event.generation))
        self._moves.realised(name, event.generation)
        self._quarantine.acknowledged(name, event.generation)
        # Not that of its newest program: one that is programmed without pause would never get there.
        if event.generation >= state.certain.get(name, 0) and state.sessions[name].synced:
            fault = state.faults.get(name)
            if fault is not None:
                state.put("faults", name, replace(fault, blind=False) if state.refused_by(name) else None)
            self._recovery.confirmed_by(name)

    def refused(self, event: FlowRefused) -> None:
        """A switch answered a change with an error: it goes without what that was of (quarantine.py).

        If that is not known, neither is what it holds: no program is sent before it has been read back.
        """
        name = self._work.state.by_dpid.get(event.dpid)
        if name is None:
            return
        self._work.count("flow.refused")
        about = {} if event.change is None else {"flow": describe(event.change.flow)}
        told = {"generation": event.generation, "type": event.type, "code": event.code}
        self._work.report("nve.refused", nve=name, **told, error=error(event.type, event.code), **about)
        if self._goes_without(name, event) or self._quarantine.refused(name, event):
            return
        self._recovery.refused(name, event.generation, event.type, event.code)
        if self._work.session(name) is not None:
            session = self._work.state.sessions[name]
            self._work.state.put("sessions", name, replace(session, synced=False))
            self._recovery.unsure_of(name)
            # Not at once, and ever later: a switch that keeps refusing would otherwise be asked in a tight loop.
            before = self._work.state.faults.get(name)
            times = before.times + 1 if before is not None and before.blind else 1
            fault = Fault(event.type, event.code, self._work.now, times, blind=True)
            self._work.state.put("faults", name, fault)
            pause = min(RESYNC_PAUSE_MAX, self._work.settings.resync_pause * 2 ** min(16, fault.times - 1))
            self._work.state.put("clock", ("resync", name), self._work.now + pause)

    def _goes_without(self, name: str, event: FlowRefused) -> bool:
        """Whether what it refused are answers, which the NVA then gives itself: no move depends on them."""
        session = self._work.state.sessions.get(name)
        left = None if session is None else replies.left(session.answers, event)
        if session is not None and left not in (None, session.answers):
            self._work.state.put("sessions", name, replace(session, answers=left or (), synced=False))
            self._work.report("nve.answers", nve=name, answers=[question.value for question in left or ()])
            self._work.state.put("clock", ("resync", name), self._work.now + self._work.settings.resync_pause)
        return left is not None

    def flow_expired(self, event: FlowExpired) -> None:
        """An idle pulled entry has left the switch: the NVE is no correspondent any more until it asks again."""
        state = self._work.state
        name, interface = state.by_dpid.get(event.dpid), self._pulled_by(event.flow)
        if name is not None and interface is not None:
            state.put("pulled", (name, interface), None)

    def _pulled_by(self, flow: Flow) -> str | None:
        """The interface that a pulled entry is about."""
        fields = {item[0]: item[1] for item in flow.match}
        if "tun_id" not in fields or "eth_dst" not in fields:
            return None
        return self._work.state.mac_owner(int.from_bytes(fields["tun_id"], "big"), fields["eth_dst"])

    def packets_shed(self, event: PacketsShed) -> None:
        """Packets were dropped before anybody looked at them; counted by the runtime, told now and then."""
        state = self._work.state
        name = state.by_dpid.get(event.dpid)
        port = None if name is None or event.port is None else state.by_number.get((name, event.port))
        interface = None if name is None or port is None else state.by_place.get(Place(name, port))
        self._work.report("packets.shed", nve=name, port=port, interface=interface, packets=event.packets)

    # --- reading back -------------------------------------------------------------------------------------------------
    def resync(self, name: str) -> None:
        """Read all our flows of a switch; the answer replaces what was believed."""
        state = self._work.state
        state.put("clock", ("resync", name), None)
        session = state.sessions.get(name)
        if session is None:
            return
        state.put("sessions", name, replace(session, synced=False))
        self._work.read_back(name)

    def verify(self, name: str, token: str) -> None:
        """Ask for a full comparison; the answer carries ``token``. Raises Conflict if there is nothing to ask."""
        if self._work.session(name) is None:
            raise Conflict(f"NVE {name} is not connected and in sync", nve=name)
        self._asked_at[token] = self._work.state.generations.get(name, (0, 0))[0]
        self._work.do(ReadFlows(self._work.dpid(name), token, COOKIE_OURS, COOKIE_MASK))

    def meters_read(self, event: MetersRead) -> None:
        """The answer to a reading of meters for a ledger."""
        number, _, reading = event.token.partition(":")[2].partition(":")
        if event.failed:
            self._accounts.not_read(int(number), reading)
            self.account_closes(int(number))
            return
        self._account(int(number), self._accounts.read_meters(int(number), reading, event.meters))

    def ports_read(self, event: PortsRead) -> None:
        """The answer to any reading of ports' statistics."""
        kind, _, rest = event.token.partition(":")
        if kind == "ledger":
            number, _, reading = rest.partition(":")
            self._account(int(number), self._accounts.read_ports(int(number), reading, event.ports))
        else:
            self._work.do(Answer(event.token, event.ports))

    def _account(self, number: int, quiet: bool) -> None:
        move = self._work.state.moves.get(number)
        self.account_closes(number)
        if quiet and move is not None and not move.unconfirmed and not self._waited_for(move):
            self._moves.fire(number, MoveEvent.QUIET, "redirect quiet")

    def account_closes(self, number: int) -> None:
        """A move that has ended may have waited for its last readings, and for nothing else."""
        move = self._work.state.moves.get(number)
        if move is not None and not move.open and number not in self._work.state.waits:
            self._moves.stage_done(number)

    def _waited_for(self, move: Move) -> bool:
        """Whether packets still wait for the VM's port at the destination, or its source, back by now, may answer."""
        state = self._work.state
        return ("rewatch", move.id) in state.clock or any(leg.interface in state.held for leg in move.legs)

    def flows_read(self, event: FlowsRead) -> None:
        """The answer to any reading of flows."""
        name = self._work.state.by_dpid.get(event.dpid)
        if name is None:
            return
        kind, _, rest = event.token.partition(":")
        if kind == "sync" and event.generation in (None, self._work.state.generations.get(name, (0, 0))[0]):
            self._synchronise(name, event.flows)
        elif kind == "sync":
            self._read_too_early(name)
        elif kind == "ledger":
            number, _, reading = rest.partition(":")
            self._account(int(number), self._accounts.read_flows(int(number), reading, event.flows))
        elif kind == "verify":
            self._compare(name, event)
        else:
            self._work.do(Answer(event.token, event.flows))
        if event.lacks and self._work.session(name) is not None:
            self._work.report("nve.differs", nve=name)
            self._accounts.forgot(name)  # with flows and meters goes what they had counted
            self.resync(name)

    def _read_too_early(self, name: str) -> None:
        """A change was sent after all flows had been asked for: the answer may be older, and nothing of it is adopted.

        It is asked for again; in the end while no changes are sent, so that nothing can overtake the answer.
        """
        self._work.count("reading.overtaken")
        if self._work.session(name) is None:
            return  # who took it out of sync has it read again
        times = self._overtaken.get(name, 0) + 1
        self._overtaken[name] = times
        if times < OVERTAKEN_MOST:
            self._work.read_back(name)
        else:
            self.resync(name)

    def _synchronise(self, name: str, stats: tuple[FlowStats, ...]) -> None:
        state = self._work.state
        self._overtaken.pop(name, None)
        session = state.sessions.get(name)
        if session is None:
            return
        state.put("sessions", name, replace(session, synced=True))
        # What the step changes from here on is sent beside it: see Nva._program.
        installed = {s.flow.key: s.flow for s in stats if s.flow.cookie & COOKIE_MASK == COOKIE_OURS}
        for flow in installed.values():
            adopt(state, name, flow, self._pulled_by(flow))
        for move in state.open_moves():  # one end has shown what it knows, or the other what it has forgotten
            if name in move.ends and (move.redirect is not Redirect.NONE or move.state.steered):
                prepull.follow(state, move)
        if not installed:
            self._recovery.forgot(name, "has come back with empty tables")
            self._accounts.forgot(name)
        self._correct(name, installed)
        state.touched.pop(name, None)
        self._work.whole[name] = state.mark()
        self._prober.cool(name)
        self._prober.warm(name, tuple(state.networks_of(name)))
        self._tunnels.changed(name)
        self._packets.synchronised(name)
        self._work.report("nve.synchronised", nve=name, flows=len(installed))

    def _correct(self, name: str, installed: dict[FlowKey, Flow]) -> None:
        """Send what turns an NVE's flows into those that it should have, and by programs of their own units that it has
        refused, or may have: their generations tell which of them it refuses now."""
        state = self._work.state
        alone = self._quarantine.trials(name, installed)
        apart: dict[FlowKey, Flow] = {}
        for unit in alone:
            apart.update(wanted(state, name, (unit,)))
        # What it still has of them as it should be is not removed to be sent again; what is otherwise is.
        changes = difference(installed, desired(state, name))
        first = (c for c in changes if c.flow.key not in apart or (c.op == "delete" and c.flow != apart[c.flow.key]))
        self.program(name, tuple(first))
        for unit in alone:
            lacking = {key: flow for key, flow in wanted(state, name, (unit,)).items() if installed.get(key) != flow}
            self.program(name, difference({}, lacking))
            self._quarantine.tried(name, unit, state.generation)
        state.put("certain", name, state.generation)
        self._quarantine.wake(name)
        if alone:
            self._recovery.waits_on(name)

    def program(self, name: str, changes: tuple[FlowChange, ...], generation: int | None = None) -> None:
        """Send changes to a switch under a generation (default: the next); a barrier reply will report it."""
        state = self._work.state
        generation = generation or state.generation + 1
        state.put("meta", "generation", generation)
        if generation > state.numbers.get("generation", 0):
            # So that no later life of the NVA gives the same number again, with a record for many.
            state.put("numbers", "generation", generation + GENERATIONS_AHEAD)
        state.put("generations", name, (generation, state.generations.get(name, (0, 0))[1]))
        self._work.do(Program(self._work.dpid(name), generation, changes))

    def _compare(self, name: str, event: FlowsRead) -> None:
        asked = self._asked_at.pop(event.token, -1)
        if self._work.session(name) is None or asked != self._work.state.generations.get(name, (0, 0))[0]:
            self._work.do(Answer(event.token, None))  # changed meanwhile: the asker asks again
            return
        session = self._work.state.sessions[name]
        installed = {s.flow.key: s.flow for s in event.flows}
        changes = difference(installed, desired(self._work.state, name))
        self._work.do(
            Answer(
                event.token,
                {
                    "nve": name,
                    "in_sync": not changes,
                    "flows": len(installed),
                    "differences": [f"{c.op} {describe(c.flow)}" for c in changes],
                    "tunnel_to_tunnel": [
                        describe(f) for f in installed.values() if is_tunnel_to_tunnel(f, session)
                    ],
                },
            )
        )
