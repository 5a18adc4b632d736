"""Figures for Prometheus, read off the state when they are asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .. import __version__
from ..model import EvacueeState, Move, MoveState
from ..state import State
from . import findings
from .authentication import OUTCOMES
from .contract import Call, Reply, Runtime, Shared

__all__ = ["Figures", "metrics"]

_choose_encoder: Any = choose_encoder  # its types are incomplete

#: Upper bounds in seconds.
DURATIONS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
CONVERGENCE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _Histogram:
    """Observations sorted into buckets."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        total, found = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found, self._sum


class Figures(Collector):
    """The NVA's figures on a registry of their own. Moves count once they have ended since the NVA was started."""

    def __init__(self, runtime: Runtime, shared: Shared | None = None) -> None:
        self._runtime = runtime
        self._shared = shared or Shared()
        self._newest = 0
        self._pending: set[int] = set()
        self._closed: Counter[str] = Counter()
        self._packets: Counter[str] = Counter()
        self._durations = {kind: _Histogram(DURATIONS) for kind in ("hot", "cold")}
        self._convergence = _Histogram(CONVERGENCE)
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing is collected before it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every figure as it is now."""
        self._account()
        state = self._runtime.state
        yield InfoMetricFamily("vmm", "The NVA", {"version": __version__})
        yield GaugeMetricFamily("vmm_start_time_seconds", "When the NVA was started, Unix time", self._runtime.started)
        sessions = state.sessions.values()
        yield _labelled(
            GaugeMetricFamily("vmm_nves", "NVEs by how well they are connected", labels=["status"]),
            {
                "registered": len(state.nves),
                "connected": len(sessions),
                "in_sync": sum(session.synced for session in sessions),
                "refusing": len(state.faults),
                "lacking_ports": len(state.lacking),
            },
        )
        yield from _tunnels(state)
        yield GaugeMetricFamily("vmm_networks", "Virtual networks", len(state.networks))
        yield GaugeMetricFamily("vmm_vms", "VMs", len(state.vms))
        yield GaugeMetricFamily("vmm_interfaces", "Interfaces of VMs", len(state.interfaces))
        yield GaugeMetricFamily("vmm_interfaces_frozen", "Interfaces that flap and are frozen", len(state.frozen))
        yield GaugeMetricFamily("vmm_ports_silenced", "Ports whose forgeries are only counted", len(state.silenced))
        yield CounterMetricFamily(
            "vmm_generation", "Number of the newest program; each start goes on above all before it", state.generation
        )
        open_moves = Counter(str(move.state) for move in state.open_moves())
        yield _labelled(
            GaugeMetricFamily("vmm_moves_open", "Open moves by state", labels=["state"]),
            {str(s): open_moves[str(s)] for s in MoveState if not s.closed},
        )
        evacuees = Counter[str]()
        for number in state.unfinished.values():
            evacuees.update({str(found): count for found, count in state.evacuee_counts(number).items()})
        yield GaugeMetricFamily("vmm_evacuations_open", "Evacuations that have not ended", len(state.unfinished))
        yield _labelled(
            GaugeMetricFamily("vmm_evacuees", "VMs in evacuations that have not ended, by state", labels=["state"]),
            {str(found): evacuees[str(found)] for found in EvacueeState},
        )
        yield _labelled(
            GaugeMetricFamily("vmm_names", "Names, by whether name servers have confirmed them", labels=["state"]),
            _by_state(state),
        )
        yield from self._of_moves()
        yield from self._counted()
        yield from self._asked()

    def _of_moves(self) -> Iterator[Metric]:
        yield _labelled(
            CounterMetricFamily("vmm_moves_closed", "Moves that have ended, by how", labels=["state"]),
            {str(s): self._closed[str(s)] for s in MoveState if s.closed},
        )
        duration = HistogramMetricFamily(
            "vmm_move_duration_seconds", "From a move's creation to its end", labels=["kind"]
        )
        for kind, histogram in self._durations.items():
            duration.add_metric([kind], *histogram.buckets())
        yield duration
        convergence = HistogramMetricFamily(
            "vmm_move_convergence_seconds", "From a move's trigger to the last NVE's barrier reply"
        )
        convergence.add_metric([], *self._convergence.buckets())
        yield convergence
        yield _labelled(
            CounterMetricFamily(
                "vmm_move_packets", "Packets in the ledgers of ended moves, by what became of them", labels=["fate"]
            ),
            {fate: self._packets[fate] for fate in _FATES},
        )

    def _counted(self) -> Iterator[Metric]:
        families = {
            "packet_in": CounterMetricFamily(
                "vmm_packet_ins", "Packets handed over by switches, by reason", labels=["reason"]
            ),
            "drop": CounterMetricFamily("vmm_drops", "Packets dropped by the NVA, by cause", labels=["cause"]),
            "name": CounterMetricFamily(
                "vmm_name_updates", "What came of telling name servers of names, by result", labels=["result"]
            ),
            "": CounterMetricFamily("vmm_occurrences", "What else the NVA counts, by name", labels=["name"]),
        }
        for name, value in sorted({"name.published": 0, "name.failed": 0, **self._runtime.counters}.items()):
            family, _, label = name.partition(".")
            if label and family in families:
                families[family].add_metric([label], value)
            else:
                families[""].add_metric([name], value)
        yield from families.values()
        shed = CounterMetricFamily(
            "vmm_packet_ins_shed",
            "Packets dropped unseen because too many of the same port or NVE waited",
            labels=["nve", "port"],
        )
        for (nve, port), value in sorted(self._runtime.shed_packets.items()):
            shed.add_metric([nve, port], value)
        yield shed
        dropped = CounterMetricFamily(
            "vmm_nve_drops",
            "Packets dropped by an NVE's switch since its flows are there, by cause",
            labels=["nve", "cause"],
        )
        for nve, causes in sorted(self._runtime.drops.items()):
            for cause, value in sorted(causes.items()):
                if value:
                    dropped.add_metric([nve, cause], value)
        yield dropped

    def _asked(self) -> Iterator[Metric]:
        access, audit = self._shared.access, self._shared.audit
        yield _labelled(
            CounterMetricFamily(
                "vmm_rest_identifications", "Requests by what their sender showed and came to", labels=["outcome"]
            ),
            {outcome: access.counters[outcome] for outcome in sorted({*OUTCOMES, *access.counters})},
        )
        wrong = len(access.failures)
        yield GaugeMetricFamily("vmm_rest_sources_failing", "Addresses that showed wrong credentials", wrong)
        left_out = 0 if audit is None else audit.unrecorded
        yield CounterMetricFamily("vmm_audit_unrecorded", "Attempts that changed nothing, not recorded", left_out)
        failing = audit is not None and bool(audit.trouble)
        yield GaugeMetricFamily("vmm_audit_failing", "Whether changes are refused as none can be recorded", failing)
        yield GaugeMetricFamily("vmm_event_streams", "Open event streams", self._shared.streams.total())

    def _account(self) -> None:
        """Observe the moves that have ended since this was last called."""
        moves = self._runtime.state.moves
        fresh = {number for number in moves if number > self._newest}
        self._newest = max(fresh, default=self._newest)
        for number in sorted(self._pending | fresh):
            move = moves.get(number)
            if move is None:
                self._pending.discard(number)
            elif move.open:
                self._pending.add(number)
            else:
                self._pending.discard(number)
                if move.history[-1].at >= self._runtime.started:
                    self._observe(move)

    def _observe(self, move: Move) -> None:
        self._closed[str(move.state)] += 1
        self._durations[str(move.kind)].observe(move.history[-1].at - move.created)
        if move.ledger.barriers:
            self._convergence.observe(max(move.ledger.barriers.values()))
        for fate, count in _FATES.items():
            self._packets[fate] += count(move)


_FATES: dict[str, Callable[[Move], int]] = {
    "redirected": lambda move: move.ledger.redirected_packets,
    "arrived": lambda move: move.ledger.arrived_packets,
    "lost": lambda move: move.ledger.lost_packets,
    "held": lambda move: move.ledger.held_packets,
    "held_lost": lambda move: move.ledger.held_lost,
    "dropped": lambda move: move.ledger.dropped_packets,
    "late": lambda move: move.ledger.late_packets,
    # A counter only grows: an ended move that counted more arrivals than it redirected adds nothing.
    "unaccounted": lambda move: max(0, move.ledger.unaccounted),
    "stale": lambda move: sum(stale.packets for stale in move.ledger.stale.values()),
}


#: Paths that do not work, of which each has a figure of its own.
_PATHS = 100


def _tunnels(state: State) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "vmm_tunnels_failed", "Paths between NVEs, each in one direction, on which probes do not arrive",
        len(state.broken),
    )  # fmt: skip
    since = GaugeMetricFamily(
        "vmm_tunnel_failed_since_seconds", f"When a path failed, Unix time; {_PATHS} at most",
        labels=["source", "destination", "way"],
    )  # fmt: skip
    for (source, destination, way), path in sorted(state.broken.items(), key=lambda item: item[1].since)[:_PATHS]:
        since.add_metric([source, destination, findings.way(way)], path.since)
    yield since


def _by_state(state: State) -> dict[str, int]:
    """How many names are as name servers have confirmed, wait for that, or could not be published when last tried."""
    failing = len(state.unpublished)
    waiting = len(list(state.unconfirmed()))
    return {"published": len(state.names) - waiting, "waiting": max(0, waiting - failing), "failing": failing}


def _labelled(family: GaugeMetricFamily | CounterMetricFamily, values: dict[str, int]) -> Metric:
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def metrics(call: Call) -> Reply:
    """The figures, in the format that the client prefers."""
    if call.shared.figures is None:
        call.shared.figures = Figures(call.runtime, call.shared)
    encode, media = _choose_encoder(call.headers.get("Accept") or "")
    return Reply(text=encode(call.shared.figures.registry), media=media)
