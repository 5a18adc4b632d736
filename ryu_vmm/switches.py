"""What NVEs report: their coming and going, ports, barriers, errors, and their flows read back."""

from __future__ import annotations

from dataclasses import replace

from .effects import Answer, Program, ReadFlows
from .errors import Conflict
from .events import (
    BarrierReplied,
    FlowExpired,
    FlowRefused,
    FlowsRead,
    MetersRead,
    NveConnected,
    NveDisconnected,
    PortChanged,
    PortInfo,
)
from .flows import Flow, FlowChange, FlowKey, FlowStats
from .ledger import Accounts
from .mobility import MoveEvent
from .model import Fault, Move, Place, Port, Session
from .moves import Moves
from .ovstext import describe
from .packets import Packets
from .pipeline import COOKIE_MASK, COOKIE_OURS, desired, is_tunnel_to_tunnel
from .probes import Prober
from .work import Work

#: Seconds that a switch which keeps refusing flows is left alone at the most.
RESYNC_PAUSE_MAX = 60.0


def difference(installed: dict[FlowKey, Flow], wanted: dict[FlowKey, Flow]) -> tuple[FlowChange, ...]:
    """The changes that turn one set of flows into another: additions before deletions (make before break).

    Additions go from the last table to the first, so that no packet is let in before it has a way out; deletions the
    other way round.
    """
    add = [flow for key, flow in wanted.items() if installed.get(key) != flow]
    delete = [flow for key, flow in installed.items() if key not in wanted]
    add.sort(key=lambda flow: -flow.table)
    delete.sort(key=lambda flow: flow.table)
    return (*(FlowChange("add", flow) for flow in add), *(FlowChange("delete", flow) for flow in delete))


class Switches:
    """Handlers of switch events other than packets."""

    def __init__(
        self, work: Work, moves: Moves, accounts: Accounts, packets: Packets, prober: Prober
    ) -> None:
        self._work = work
        self._moves = moves
        self._accounts = accounts
        self._packets = packets
        self._prober = prober
        self._asked_at: dict[str, int] = {}

    # --- coming and going --------------------------------------------------------------------------------------------
    def connected(self, event: NveConnected) -> None:
        """A switch is there: take its ports, then read its flows back before changing any."""
        state = self._work.state
        name = state.by_dpid.get(event.dpid)
        if name is None:
            state.put("strangers", event.dpid, (event.ports, event.meters))
            self._work.report("nve.unregistered", dpid=f"{event.dpid:016x}")
            return
        self.disconnected(NveDisconnected(event.dpid))  # if nobody has said so
        state.put("strangers", event.dpid, None)
        shown = {port.name: port for port in event.ports}
        self._ports_are(name, {**dict.fromkeys(state.ports_of(name)), **shown})
        programmed = state.generations.get(name, (0, 0))[0]
        state.put("generations", name, (programmed, programmed))
        state.put("sessions", name, Session(name, self._tunnel(name), meters=event.meters))
        self._work.report("nve.connected", nve=name, ports=len(event.ports))
        self.resync(name)

    def adopt(self, name: str) -> None:
        """An NVE was registered: if its switch is waiting, take it in; if its tunnel port changed, follow."""
        state = self._work.state
        dpid = state.nves[name].dpid
        if dpid in state.strangers:
            ports, meters = state.strangers[dpid]
            self.connected(NveConnected(dpid, ports, meters))
        elif name in state.sessions:
            self._follow_tunnel(name)

    def let_go(self, name: str) -> None:
        """An NVE is being removed: its switch, if connected, loses our flows and waits to be registered again."""
        state = self._work.state
        nve, session = state.nves.get(name), state.sessions.get(name)
        if nve is None or session is None:
            return
        if session.synced:
            self.program(name, difference(desired(state, name), {}))
        ports = [state.ports[(name, port)] for port in state.ports_of(name)]
        state.put("strangers", nve.dpid, (tuple(PortInfo(p.number, p.name, p.up) for p in ports), session.meters))

    def disconnected(self, event: NveDisconnected) -> None:
        """A switch's control channel is gone; it goes on forwarding as last told (fail static)."""
        self._work.state.put("strangers", event.dpid, None)
        self._asked_at.clear()  # who is not answered now never is; others ask again
        name = self._work.state.by_dpid.get(event.dpid)
        if name is None or name not in self._work.state.sessions:
            return
        self._work.state.put("sessions", name, None)
        self._work.report("nve.disconnected", nve=name)
        self._moves.nve_lost(name)

    def _tunnel(self, name: str) -> int | None:
        """The tunnel port's number: the one named at registration, else the one whose name says vxlan."""
        state = self._work.state
        wanted = state.nves[name].tunnel_port
        ports = [state.ports[(name, p)] for p in state.ports_of(name)]
        fitting = [p for p in ports if (p.name == wanted if wanted else p.name.lower().startswith("vxlan"))]
        return min((p.number for p in fitting), default=None)

    def _follow_tunnel(self, name: str) -> None:
        session = self._work.state.sessions[name]
        tunnel = self._tunnel(name)
        if tunnel != session.tunnel:
            self._work.state.put("sessions", name, replace(session, tunnel=tunnel))

    def port_changed(self, event: PortChanged) -> None:
        """A port appeared, changed or went."""
        state, port = self._work.state, event.port
        name = state.by_dpid.get(event.dpid)
        if name is None:
            if event.dpid in state.strangers:
                ports, meters = state.strangers[event.dpid]
                known = tuple(p for p in ports if p.name != port.name)
                state.put("strangers", event.dpid, (known if event.gone else (*known, port), meters))
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
        for port, info in told.items():
            state.put("ports", (name, port), info and Port(name, port, info.number, info.up))
        if name in state.sessions:
            self._follow_tunnel(name)
        for place in places:
            home, is_up = state.by_place.get(place), state.port_at(place) is not None
            if place in was_up and not is_up:
                expected = self._moves.departed(place)
                if home is not None:
                    # A meter, so that what it loses is known exactly; where it was before may still count by it.
                    state.put("gone", home, state.gone.get(home, state.free_slot()))
                    self._work.report("port.gone", nve=name, port=place.port, interface=home, expected=expected)
            elif is_up and place not in was_up and home is not None:
                if all(move.trigger != "announcement" for move, _ in state.moves_of(home)):
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
        if event.generation >= programmed and state.sessions[name].synced:
            state.put("faults", name, None)
            self._moves.confirmed_by(name)

    def refused(self, event: FlowRefused) -> None:
        """A switch answered a change with an error: what it holds is no longer known, so it is read back."""
        name = self._work.state.by_dpid.get(event.dpid)
        if name is None:
            return
        self._work.count("flow.refused")
        self._work.report("nve.refused", nve=name, generation=event.generation, type=event.type, code=event.code)
        self._moves.refused(name, event.generation, event.type, event.code)
        if self._work.session(name) is not None:
            session = self._work.state.sessions[name]
            self._work.state.put("sessions", name, replace(session, synced=False))
            # Not at once, and ever later: a switch that keeps refusing would otherwise be asked in a tight loop.
            before = self._work.state.faults.get(name)
            fault = Fault(event.type, event.code, self._work.now, 1 if before is None else before.times + 1)
            self._work.state.put("faults", name, fault)
            pause = min(RESYNC_PAUSE_MAX, self._work.settings.resync_pause * 2 ** min(16, fault.times - 1))
            self._work.state.put("clock", ("resync", name), self._work.now + pause)

    def flow_expired(self, event: FlowExpired) -> None:
        """An idle pulled entry has left the switch: the NVE is no correspondent any more until it asks again."""
        state = self._work.state
        name = state.by_dpid.get(event.dpid)
        fields = {item[0]: item[1] for item in event.flow.match}
        if name is None or "tun_id" not in fields or "eth_dst" not in fields:
            return
        interface = state.by_mac.get((int.from_bytes(fields["tun_id"], "big"), fields["eth_dst"]))
        if interface is not None:
            state.put("pulled", (name, interface), None)

    # --- reading back -------------------------------------------------------------------------------------------------
    def resync(self, name: str) -> None:
        """Read all our flows of a switch; the answer replaces what was believed."""
        state = self._work.state
        state.put("clock", ("resync", name), None)
        session = state.sessions.get(name)
        if session is None:
            return
        state.put("sessions", name, replace(session, synced=False))
        self._work.do(ReadFlows(self._work.dpid(name), "sync", COOKIE_OURS, COOKIE_MASK))

    def verify(self, name: str, token: str) -> None:
        """Ask for a full comparison; the answer carries ``token``. Raises Conflict if there is nothing to ask."""
        if self._work.session(name) is None:
            raise Conflict(f"NVE {name} is not connected and in sync", nve=name)
        self._asked_at[token] = self._work.state.generations.get(name, (0, 0))[0]
        self._work.do(ReadFlows(self._work.dpid(name), token, COOKIE_OURS, COOKIE_MASK))

    def meters_read(self, event: MetersRead) -> None:
        """The answer to a reading of meters for a ledger."""
        number, _, reading = event.token.partition(":")[2].partition(":")
        self._account(int(number), self._accounts.read_meters(int(number), reading, event.meters))

    def _account(self, number: int, quiet: bool) -> None:
        move = self._work.state.moves.get(number)
        if quiet and move is not None and not move.unconfirmed and not self._waited_for(move):
            self._moves.fire(number, MoveEvent.QUIET, "redirect quiet")

    def _waited_for(self, move: Move) -> bool:
        """Whether packets still wait for the VM's port at the destination."""
        return any(leg.interface in self._work.state.held for leg in move.legs)

    def flows_read(self, event: FlowsRead) -> None:
        """The answer to any reading of flows."""
        name = self._work.state.by_dpid.get(event.dpid)
        if name is None:
            return
        kind, _, rest = event.token.partition(":")
        if kind == "sync":
            self._synchronise(name, event.flows)
        elif kind == "ledger":
            number, _, reading = rest.partition(":")
            self._account(int(number), self._accounts.read_flows(int(number), reading, event.flows))
        elif kind == "verify":
            self._compare(name, event)
        else:
            self._work.do(Answer(event.token, event.flows))

    def _synchronise(self, name: str, stats: tuple[FlowStats, ...]) -> None:
        state = self._work.state
        session = state.sessions.get(name)
        if session is None:
            return
        state.put("sessions", name, replace(session, synced=True))
        # The step that turns a session synced computes no difference of its own for this NVE: this is it.
        installed = {s.flow.key: s.flow for s in stats if s.flow.cookie & COOKIE_MASK == COOKIE_OURS}
        self.program(name, difference(installed, desired(state, name)))
        state.touched.pop(name, None)
        self._prober.cool(name)
        self._prober.warm(name, tuple(state.networks_of(name)))
        self._work.report("nve.synchronised", nve=name, flows=len(installed))

    def program(self, name: str, changes: tuple[FlowChange, ...], generation: int | None = None) -> None:
        """Send changes to a switch under a generation (default: the next); a barrier reply will report it."""
        state = self._work.state
        generation = generation or state.generation + 1
        state.put("meta", "generation", generation)
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
                        describe(f) for f in installed.values() if is_tunnel_to_tunnel(f, session.tunnel)
                    ],
                },
            )
        )
