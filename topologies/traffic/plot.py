"""A picture of moves under traffic: what arrived when, with the states of each move marked.

The upper panel has a lane for each flow over the whole time, as high as its arrivals per second. Below it is a close-up
of each move's switch-over: a lane for each flow again, now with a tick for every datagram that arrived, and under the
lanes a dot for every datagram, at the time it was sent and as high as it was long under way. What was held while the VM
was paused shows as a gap in the lanes and as a slope in the dots. A datagram that never arrived is a red stroke in the
lane at the time it was sent, and one that arrived twice a red ring at the time of its second arrival.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from topologies.traffic.arrivals import Arrivals
from topologies.traffic.svg import FAINT, INK, Canvas, Scale

# Okabe and Ito's colours, which colour-blind readers tell apart too; neighbours are a dark and a light one
_FLOWS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#007a59", "#39b894", "#9c4a80", "#cc79a7")
_STATES = {
    "preparing": "#e9e9e9", "prepared": "#dbe9f6", "redirecting": "#fde0b6", "steering": "#fbb679",
    "draining": "#d3ecd0", "aborted": "#fcbba1", "failed": "#fb6a4a",
}
_LOST, _GRID = "#e0131a", "#c9c9c9"
_WIDTH, _LEFT, _RIGHT, _GAP = 1200.0, 136.0, 24.0, 44.0
_LETTER = 7.0  # width of a letter of a flow's name
_BIN = 0.02  # seconds of one step of the upper panel
_CLIP = 2.5  # a lane of the upper panel is as high as so many times the usual rate
_BROAD, _NARROW = 19.0, 15.0  # lanes of the upper panel and of a close-up
_STRIP, _DOTS = 17.0, 180.0  # what shows the pause; the panel of dots
_BEFORE, _AFTER = 0.06, 0.12  # seconds of a close-up before the redirect and after the last confirmation


@dataclass(frozen=True)
class PlotFlow:
    """One flow: its name, what arrived, and how many were sent (numbers 0 to sent - 1)."""

    name: str
    arrivals: Arrivals
    sent: int


@dataclass(frozen=True)
class Band:
    """A state of a move from `start` to `end`, monotonic seconds."""

    state: str
    start: float
    end: float


@dataclass(frozen=True)
class PlotMove:
    """One move: its name, its states in order, and from when to when the VM was paused (monotonic seconds)."""

    name: str
    bands: Sequence[Band]
    paused: tuple[float, float] | None = None

    @property
    def zero(self) -> float:
        """Time zero of its close-up: the pause, else the first state."""
        return self.paused[0] if self.paused else self.bands[0].start

    def window(self) -> tuple[float, float]:
        """What its close-up shows: from just before anything changes until all correspondents have confirmed."""
        times = [t for band in self.bands if band.state in ("redirecting", "steering") for t in (band.start, band.end)]
        times += self.paused or ()
        times = times or [self.bands[0].start, self.bands[-1].end]
        return min(times) - _BEFORE, max(times) + _AFTER


@dataclass(frozen=True)
class _Panel:
    """Where a panel is, and its scale from monotonic seconds to x."""

    x: Scale
    top: float
    bottom: float

    @property
    def left(self) -> float:
        return self.x(self.x.low)

    @property
    def right(self) -> float:
        return self.x(self.x.high)


def draw(title: str, flows: Sequence[PlotFlow], moves: Sequence[PlotMove], caption: str = "") -> str:
    """The picture as an SVG document. `caption` is by default the count of what was sent, lost and doubled.

    Raises ValueError without flows or moves, or with a move that has no states.
    """
    if not flows or not moves or not all(move.bands for move in moves):
        raise ValueError("there is nothing to draw: no flows, or no moves, or no states")
    upper = 150.0
    lower = upper + _BROAD * len(flows) + 64
    height = 56 + _NARROW * len(flows) + _STRIP + _DOTS + 60
    rows = (len(moves) + 1) // 2
    canvas = Canvas(_WIDTH, lower + rows * height - 4, f"{title}. {caption or summary(flows)}")
    canvas.text(24, 36, title, 20, weight="bold")
    canvas.text(24, 59, caption or summary(flows), 13.5)
    _legend(canvas, moves, 84)
    _overview(canvas, flows, moves, upper)
    longest = max(_longest(flows, move) for move in moves)
    margin = _margin(flows)
    width = (_WIDTH - margin - _RIGHT - _GAP) / 2 if len(moves) > 1 else _WIDTH - margin - _RIGHT
    for n, move in enumerate(moves):
        left = margin + (n % 2) * (width + _GAP)
        _closeup(canvas, flows, move, lower + (n // 2) * height, (left, left + width), longest, first=n % 2 == 0)
    return canvas.document()


def summary(flows: Sequence[PlotFlow]) -> str:
    """The count of all flows in words."""
    sent = sum(flow.sent for flow in flows)
    got = sum(len(set(flow.arrivals.seq)) for flow in flows)
    again = sum(len(flow.arrivals) for flow in flows) - got
    return f"{sent:,} datagrams sent, {got:,} arrived, {sent - got:,} lost, {again:,} duplicated"


def _colour(i: int) -> str:
    return _FLOWS[i % len(_FLOWS)]


def _legend(canvas: Canvas, moves: Sequence[PlotMove], y: float) -> None:
    seen = {band.state for move in moves for band in move.bands}
    x = 24.0
    canvas.text(x, y, "state of the move:", 11.5, FAINT)
    x += 118
    for state, colour in _STATES.items():
        if state in seen:
            canvas.rect(x, y - 10, 22, 13, colour, extra=f"stroke='{_GRID}' stroke-width='0.6'")
            canvas.text(x + 28, y, state, 11.5)
            x += 46 + 7 * len(state)
    if any(move.paused for move in moves):
        canvas.rect(x, y - 10, 22, 13, INK)
        canvas.text(x + 28, y, "VM paused", 11.5)
        x += 118
    canvas.line(x + 10, y - 11, x + 10, y + 3, _LOST, 2)
    canvas.text(x + 22, y, "lost", 11.5)
    canvas.rings([(x + 72, y - 4)], _LOST)
    canvas.text(x + 82, y, "duplicated", 11.5)


def _shade(canvas: Canvas, panel: _Panel, moves: Iterable[PlotMove]) -> None:
    for band in (band for move in moves for band in move.bands):
        start, end = max(band.start, panel.x.low), min(band.end, panel.x.high)
        if end > start:
            x = panel.x(start)
            canvas.rect(x, panel.top, max(0.6, panel.x(end) - x), panel.bottom - panel.top,
                        _STATES.get(band.state, "#f2f2f2"))


def _axis(canvas: Canvas, panel: _Panel, zero: float, unit: float, label: str, about: int) -> None:
    """The time axis at the bottom: `unit` seconds make one of it, counted from `zero`."""
    scale = Scale((panel.x.low - zero) / unit, (panel.x.high - zero) / unit, panel.left, panel.right)
    for tick in scale.ticks(about):
        canvas.line(scale(tick), panel.bottom, scale(tick), panel.bottom + 4, FAINT)
        canvas.text(scale(tick), panel.bottom + 17, f"{tick:,.10g}", 11, FAINT, "middle")
    canvas.line(panel.left, panel.bottom, panel.right, panel.bottom, INK)
    canvas.text((panel.left + panel.right) / 2, panel.bottom + 34, label, 11.5, FAINT, "middle")


def _margin(flows: Sequence[PlotFlow]) -> float:
    """What the names of the flows need to the left of the panels."""
    return max(_LEFT, _LETTER * max(len(flow.name) for flow in flows) + 16)


def _names(canvas: Canvas, flows: Sequence[PlotFlow], top: float, lane: float, left: float) -> None:
    for i, flow in enumerate(flows):
        canvas.text(left - 8, top + lane * (i + 0.5) + 4, flow.name, 11, _colour(i), "end", "bold")


# --- the whole time ------------------------------------------------------------------------------------------


def _overview(canvas: Canvas, flows: Sequence[PlotFlow], moves: Sequence[PlotMove], top: float) -> None:
    low = min((f.arrivals.arrived_ns[0] for f in flows if len(f.arrivals)), default=0) / 1e9
    high = max((f.arrivals.arrived_ns[-1] for f in flows if len(f.arrivals)), default=10**9) / 1e9
    low, high = min(low, moves[0].bands[0].start), max(high, moves[-1].bands[-1].end)
    panel = _Panel(Scale(low, high, _margin(flows), _WIDTH - _RIGHT), top, top + _BROAD * len(flows))
    canvas.text(24, top - 26, "The whole time: arrivals per second", 13, weight="bold")
    _shade(canvas, panel, moves)
    for move in moves:
        start, end = panel.x(move.bands[0].start), panel.x(move.bands[-1].end)
        canvas.line(start, top - 4, end, top - 4, INK, 1.5)
        canvas.text(start, top - 9, move.name, 11.5)
        if move.paused:
            x1, x2 = (panel.x(t) for t in move.paused)
            canvas.rect(x1, top - 4, max(1.5, x2 - x1), 5, INK)
    _names(canvas, flows, top, _BROAD, panel.left)
    rates = [_rates(flow, low, high) for flow in flows]
    usual = max(sorted(rate)[len(rate) // 2] for rate in rates)
    highest = _CLIP * usual if usual else max(max(rate) for rate in rates) or 1.0
    step = (panel.right - panel.left) * _BIN / (high - low)
    for i, (flow, rate) in enumerate(zip(flows, rates, strict=True)):
        floor = top + _BROAD * (i + 1)
        points = [(panel.left, floor)]
        for n, value in enumerate(rate):
            y = floor - min(1.0, value / highest) * (_BROAD - 3)
            points += [(panel.left + n * step, y), (min(panel.right, panel.left + (n + 1) * step), y)]
        canvas.area([*points, (points[-1][0], floor)], _colour(i))
        _faults(canvas, flow, panel, floor - _BROAD + 2, floor)
    _axis(canvas, panel, moves[0].zero, 1.0, f"seconds (full height of a lane: {highest:,.0f} datagrams/s or more)", 14)


def _rates(flow: PlotFlow, low: float, high: float) -> list[float]:
    """Arrivals per second in steps of the upper panel; the last, shorter step is left out."""
    bins = [0] * max(1, int((high - low) / _BIN))
    for at in flow.arrivals.arrived_ns:
        n = int((at / 1e9 - low) / _BIN)
        if n < len(bins):
            bins[n] += 1
    return [count / _BIN for count in bins]


# --- a switch-over -------------------------------------------------------------------------------------------


def _within(flow: PlotFlow, window: tuple[float, float]) -> list[tuple[float, float]]:
    """When each datagram sent within the window was sent, and how long it was under way: seconds, milliseconds."""
    first, last = round(window[0] * 1e9), round(window[1] * 1e9)
    pairs = zip(flow.arrivals.sent_ns, flow.arrivals.arrived_ns, strict=True)
    return [(sent / 1e9, (at - sent) / 1e6) for sent, at in pairs if first <= sent <= last]


def _longest(flows: Sequence[PlotFlow], move: PlotMove) -> float:
    return max((delay for flow in flows for _, delay in _within(flow, move.window())), default=1.0)


def _closeup(
    canvas: Canvas, flows: Sequence[PlotFlow], move: PlotMove, y: float, across: tuple[float, float], longest: float,
    first: bool,
) -> None:
    """One move: state names, lanes, the pause, dots. `first`: it stands leftmost, where the lanes get their names."""
    lanes = y + 52
    strip = lanes + _NARROW * len(flows)
    dots = strip + _STRIP
    window = move.window()
    panel = _Panel(Scale(*window, *across), lanes, dots + _DOTS)
    canvas.text(24 if first else panel.left, y + 10, f"Close-up of {move.name}", 13, weight="bold")
    _shade(canvas, panel, [move])
    _state_names(canvas, panel, move)
    if first:
        _names(canvas, flows, lanes, _NARROW, panel.left)
        canvas.text(panel.left - 8, strip + 13, "the VM", 11, INK, "end", "bold")
        canvas.text(24, (dots + panel.bottom) / 2 + 12, "milliseconds under way,", 11.5, FAINT, "middle", turn=-90)
        canvas.text(39, (dots + panel.bottom) / 2 + 12, "by time of sending", 11.5, FAINT, "middle", turn=-90)
    _delays(canvas, flows, panel, window, dots, longest)
    for i, flow in enumerate(flows):
        top = lanes + _NARROW * i
        times = flow.arrivals.arrived_ns
        seen = times[bisect_left(times, round(window[0] * 1e9)) : bisect_right(times, round(window[1] * 1e9))]
        canvas.ticks((panel.x(at / 1e9) for at in seen), top + 2, top + _NARROW - 1, _colour(i))
        _faults(canvas, flow, panel, top + 1, top + _NARROW - 1)
    for edge in (strip, dots):
        canvas.line(panel.left, edge, panel.right, edge, _GRID)
    canvas.line(panel.left, lanes, panel.left, panel.bottom, INK)
    _pause(canvas, panel, move, strip)
    about = "milliseconds since the pause" if move.paused else "milliseconds since the move began"
    _axis(canvas, panel, move.zero, 1e-3, about, 10)


def _state_names(canvas: Canvas, panel: _Panel, move: PlotMove) -> None:
    """Each name above the middle of its band, in the lower of two rows where there is room for it."""
    ends = [panel.left - 20, panel.left - 20]
    for band in move.bands:
        start, end = max(band.start, panel.x.low), min(band.end, panel.x.high)
        if end <= start:
            continue
        half = 3.2 * len(band.state)
        at = min(max((panel.x(start) + panel.x(end)) / 2, panel.left + half), panel.right - half)
        row = 0 if at - half >= ends[0] + 6 else 1
        ends[row] = at + half
        if row:
            canvas.line(at, panel.top - 18, at, panel.top, FAINT, 0.7)
        canvas.text(at, panel.top - 6 - 15 * row, band.state, 11, anchor="middle")


def _pause(canvas: Canvas, panel: _Panel, move: PlotMove, strip: float) -> None:
    if not move.paused:
        return
    start, end = (panel.x(t) for t in move.paused)
    for x in (start, end):
        canvas.line(x, panel.top, x, panel.bottom, INK, 0.9, "3 3")
    canvas.rect(start, strip + 1.5, end - start, _STRIP - 3, INK)
    words = f"paused {(move.paused[1] - move.paused[0]) * 1e3:.0f} ms"
    if 6.4 * len(words) < end - start:
        canvas.text((start + end) / 2, strip + 12.5, words, 10.5, "#ffffff", "middle")
    else:
        canvas.text(end + 5, strip + 12.5, words, 10.5)


def _delays(
    canvas: Canvas, flows: Sequence[PlotFlow], panel: _Panel, window: tuple[float, float], top: float, longest: float
) -> None:
    y = Scale(0, max(1.0, longest * 1.08), panel.bottom, top)
    for tick in y.ticks(5):
        canvas.line(panel.left, y(tick), panel.right, y(tick), _GRID, 0.6)
        canvas.text(panel.left - 6, y(tick) + 4, f"{tick:,.10g}", 11, FAINT, "end")
    for i, flow in enumerate(flows):
        canvas.dots(((panel.x(sent), y(delay)) for sent, delay in _within(flow, window)), _colour(i))


def _faults(canvas: Canvas, flow: PlotFlow, panel: _Panel, top: float, bottom: float) -> None:
    """What is missing and what came twice, within a panel."""
    span = panel.x.low, panel.x.high
    missing = [at for at in lost_at(flow) if span[0] <= at <= span[1]]
    canvas.ticks((panel.x(at) for at in missing), top, bottom, _LOST, 1.6)
    again = [at for at in doubled_at(flow) if span[0] <= at <= span[1]]
    canvas.rings(((panel.x(at), (top + bottom) / 2) for at in again), _LOST)


def lost_at(flow: PlotFlow) -> list[float]:
    """When the missing datagrams were sent, estimated from those sent next to them (monotonic seconds)."""
    sent = dict(zip(flow.arrivals.seq, flow.arrivals.sent_ns, strict=True))
    if len(sent) == flow.sent or len(sent) < 2:
        return []
    first, last = min(sent), max(sent)
    period = (sent[last] - sent[first]) / (last - first)
    times, before = [], first
    for n in range(flow.sent):
        if n in sent:
            before = n
        else:
            times.append((sent[before] + (n - before) * period) / 1e9)
    return times


def doubled_at(flow: PlotFlow) -> list[float]:
    """When datagrams arrived that had arrived before (monotonic seconds)."""
    seen: set[int] = set()
    times = []
    for number, at in zip(flow.arrivals.seq, flow.arrivals.arrived_ns, strict=True):
        if number in seen:
            times.append(at / 1e9)
        seen.add(number)
    return times
