"""The step in hand: what the handlers of one event share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .effects import Effect, Outcome, ReadFlows, Report, SendPacket
from .flows import Action
from .limits import Limits
from .model import Session
from .state import State
from .tables import COOKIE_MASK, COOKIE_OURS


@dataclass(frozen=True, slots=True)
class Settings:
    """Times of the life of a move, all in seconds unless said otherwise; docs/vmm.conf.sample explains each.

    Attributes:
        prepare_deadline: from request to prepared, else the move fails.
        prepared_deadline: how long a prepared move may wait for its redirect.
        redirect_deadline: from redirect to the VM's sign of life, else the source serves again.
        steer_deadline: for the correspondents' barriers; what is missing then is named in the record.
        drain_cap: hard end of draining.
        quiet_time: silence of the redirect after which a move settles. Switches refresh flow counters about twice a
            second, so less than 1 would call a busy redirect quiet.
        poll_interval: between two readings of a draining move's counters.
        probe_interval: before an unanswered probe is repeated.
        ready_guard: from the destination's barrier until the source is pointed at it, so that no broadcast of that
            moment finds neither of them; see redirect_guard.
        redirect_guard: from the source's barrier to 'in force': a switch acknowledges a flow before its datapath
            has stopped using what it replaced.
        tunnel_rate: probes per second, of all NVEs together, that prove tunnels outside of moves; 0: none.
        tunnel_interval: between two probes of the same path, as far as the rate allows.
        sample_pause: after a stale correspondent was corrected, before its packets are sampled again.
        flap_moves, flap_window: that many unrequested moves of an interface in that time freeze it (RFC 7432
            section 15.1: 5 in 180 s).
        reconnect_grace: after a restart, for NVEs to come back, on top of the deadlines of moves that are open.
        freeze_time: how long it stays frozen; 0: until somebody thaws it.
        question_rate, forgery_rate: see limits.Limits.
        offender_rate: forged packets per second, over ten seconds, from which on a port's forgeries are only counted.
        silence_time: for how long.
        report_interval: refusals of one kind at one port are reported at once, then counted and reported so often.
        hold_packets: how many packets wait in the NVA for one move's destination port.
    """

    prepare_deadline: float = 10.0
    prepared_deadline: float = 600.0
    redirect_deadline: float = 60.0
    steer_deadline: float = 5.0
    drain_cap: float = 60.0
    quiet_time: float = 1.5
    poll_interval: float = 0.25
    probe_interval: float = 0.05
    tunnel_rate: int = 100
    tunnel_interval: float = 1.0
    ready_guard: float = 0.0
    redirect_guard: float = 0.02
    sample_pause: float = 0.5
    flap_moves: int = 5
    flap_window: float = 180.0
    freeze_time: float = 540.0
    question_rate: int = Limits().questions
    forgery_rate: int = Limits().forgeries
    offender_rate: float = 5.0
    silence_time: float = 60.0
    report_interval: float = 10.0
    reconnect_grace: float = 10.0
    hold_packets: int = 2048
    keep_moves: int = 10_000
    resync_pause: float = 1.0


@dataclass(slots=True)
class Work:
    """State, settings, and the outcome that the event in hand is building up.

    ``awaiting``: (move, NVEs) whose barriers are to be waited for once the step's programs are known. ``whole``: NVEs
    that have been programmed whole in this step, and where in the journal (State.mark).
    """

    state: State
    settings: Settings
    now: float = 0.0
    out: Outcome = field(default_factory=Outcome)
    first: list[Effect] = field(default_factory=list)
    awaiting: list[tuple[int, frozenset[str]]] = field(default_factory=list)
    whole: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    def begin(self, now: float) -> None:
        """Start on a new event at time ``now`` (seconds, Unix epoch, never going back)."""
        self.now = now
        self.out = Outcome()
        self.first = []
        self.awaiting = []
        self.whole = {}
        self.state.begin()

    def mark(self) -> tuple[int, ...]:
        """A position in the step in hand, for :meth:`undo_to`."""
        state = self.state
        return state.mark(), len(state.joined), len(self.out.effects), len(self.first), len(self.awaiting)

    def undo_to(self, mark: tuple[int, ...]) -> None:
        """Undo what the step has changed, asked for and waits for since :meth:`mark`; what was counted is."""
        at, joined, effects, first, awaiting = mark
        self.state.undo_to(at)
        self.whole = {nve: position for nve, position in self.whole.items() if position <= at}
        del self.state.joined[joined:]
        del self.out.effects[effects:], self.first[first:], self.awaiting[awaiting:]

    def report(self, kind: str, **fields: object) -> None:
        """Put an entry on the event stream, with the tenant whom it concerns."""
        owner = self._owner(fields)
        if owner is not None:
            fields["tenant"] = owner
        self.out.effects.append(Report(kind, fields))

    def _owner(self, fields: dict[str, object]) -> str | None:
        """The tenant of what an entry is about: of its move, else of its VM, interface or network."""
        state = self.state
        number = fields.get("move")
        move = state.moves.get(number) if isinstance(number, int) else None
        if move is not None:
            return move.tenant
        vm = state.vms.get(str(fields.get("vm") or fields.get("interface") or "").partition("/")[0])
        if vm is not None:
            return vm.tenant
        network = state.network_named(str(fields.get("network") or ""))
        return None if network is None else network.tenant

    def count(self, name: str, by: int = 1) -> None:
        """Count something that happened."""
        self.counters[name] = self.counters.get(name, 0) + by

    def do(self, effect: Effect) -> None:
        """Ask for an effect after the step's programs."""
        self.out.effects.append(effect)

    def read_back(self, nve: str) -> None:
        """Ask an NVE for all our flows: unless a change overtakes it, the answer replaces what is believed of them."""
        asked = self.state.generations.get(nve, (0, 0))[0]
        self.do(ReadFlows(self.dpid(nve), "sync", COOKIE_OURS, COOKIE_MASK, whole=True, generation=asked))

    def session(self, nve: str) -> Session | None:
        """The session of an NVE that takes programs."""
        session = self.state.sessions.get(nve)
        return session if session is not None and session.synced else None

    def dpid(self, nve: str) -> int:
        """The datapath id of an NVE."""
        return self.state.nves[nve].dpid

    def send(self, nve: str, actions: Iterable[Action], frame: bytes, in_port: int = 0xFFFFFFFD) -> None:
        """Have an NVE send a frame."""
        actions = tuple(actions)
        if actions:
            self.do(SendPacket(self.dpid(nve), actions, frame, in_port))
