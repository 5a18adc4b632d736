"""A picture of a move: what arrived when, with the move's states marked.

The upper panel shows the whole time, as arrivals per second of each flow. Below it is a close-up of the
switch-over: first a lane for each flow with a tick for every datagram that arrived, then one dot for each
datagram at the time it was sent, as high as it was long under way. What was held for the paused VM shows as a
gap in the lane and as a slope in the dots. A datagram that never arrived is a red cross at the time it was
sent.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from topologies.traffic.arrivals import Arrivals
from topologies.traffic.svg import FAINT, INK, Canvas, Scale

# Okabe and Ito's colours: told apart by colour-blind readers too
_FLOWS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f7f7f")
_STATES = {
    "preparing": "#eeeeee", "prepared": "#dbe9f6", "redirecting": "#fdd49e", "steering": "#fdae6b",
    "draining": "#c7e9c0", "settled": "#f7f7f7", "aborted": "#fcbba1", "failed": "#fb6a4a",
}
_LOST = "#e41a1c"
_LEFT, _RIGHT, _WIDTH = 78.0, 24.0, 1100.0
_BIN = 0.05  # seconds of one step of the upper panel
_LANE = 16.0
_MAX_DOTS = 20_000


@dataclass(frozen=True)
class PlotFlow:
    """One flow: its name, what arrived, and how many were sent (numbers 0 to sent - 1)."""

    name: str
    arrivals: Arrivals
    sent: int


@dataclass(frozen=True)
class Band:
    """A state of the move from `start` to `end`, monotonic seconds."""

    state: str
    start: float
    end: float


@dataclass(frozen=True)
class Mark:
    """An event, drawn as a dashed line: "paused", "resumed". Monotonic seconds."""

    name: str
    at: float


def draw(
    title: str, flows: Sequence[PlotFlow], bands: Sequence[Band], marks: Sequence[Mark] = (),
    zoom: tuple[float, float] | None = None, subtitle: str = "",
) -> str:
    """The picture as an SVG document.

    Time zero is the first mark, else the start of the first band, else the first arrival. `zoom` bounds the
    lower panel, in monotonic seconds; by default it shows the marks, or the bands before the last, with a
    margin.
    """
    if not flows:
        raise ValueError("there is nothing to draw: no flows")
    low = min((f.arrivals.arrived_ns[0] for f in flows if len(f.arrivals)), default=0) / 1e9
    high = max((f.arrivals.arrived_ns[-1] for f in flows if len(f.arrivals)), default=1) / 1e9
    zero = marks[0].at if marks else bands[0].start if bands else low
    legend_rows = (len(flows) + 3) // 4
    top = 84 + 20 * legend_rows
    canvas = Canvas(_WIDTH, top + 640 + _LANE * len(flows), title)
    canvas.text(_LEFT, 34, title, 20, weight="bold")
    canvas.text(_LEFT, 54, subtitle or _summary(flows), 12.5, FAINT)
    _legend(canvas, flows, 76)
    _overview(canvas, flows, bands, marks, (low, high), zero, top)
    _closeup(canvas, flows, bands, marks, zoom or _window(bands, marks, low, high), zero, top + 290)
    return canvas.document()


def _summary(flows: Sequence[PlotFlow]) -> str:
    sent = sum(flow.sent for flow in flows)
    got = sum(len(set(flow.arrivals.seq)) for flow in flows)
    again = sum(len(flow.arrivals) for flow in flows) - got
    return f"{sent:,} datagrams sent, {got:,} arrived, {sent - got:,} lost, {again:,} arrived twice"


def _legend(canvas: Canvas, flows: Sequence[PlotFlow], y: float) -> None:
    for i, flow in enumerate(flows):
        x = _LEFT + (i % 4) * 250
        row = y + 20 * (i // 4)
        canvas.line(x, row - 4, x + 22, row - 4, _colour(i), 4)
        canvas.text(x + 30, row, flow.name, 12.5)


def _colour(i: int) -> str:
    return _FLOWS[i % len(_FLOWS)]


def _window(bands: Sequence[Band], marks: Sequence[Mark], low: float, high: float) -> tuple[float, float]:
    times = [mark.at for mark in marks]
    if not times:
        times = [t for band in bands if band.state in ("redirecting", "steering") for t in (band.start, band.end)]
    if not times:
        return low, high
    first, last = min(times), max(times)
    margin = max(0.05, (last - first) * 0.6)
    return max(low, first - margin), min(high, last + margin)


def _frame(
    canvas: Canvas, heading: str, x: Scale, y: Scale, box: tuple[float, float], bands: Sequence[Band],
    marks: Sequence[Mark], zero: float, unit: float, names_at: float | None = None,
) -> None:
    """Bands, axes and labels of a panel; `box` is its upper and lower edge, `unit` seconds make one of the x
    axis.
    """
    top, bottom = box
    left, right = x(x.low), x(x.high)
    canvas.text(left, top - 26, heading, 13, weight="bold")
    label_end = left
    for band in bands:
        start, end = max(band.start, zero + x.low * unit), min(band.end, zero + x.high * unit)
        if end <= start:
            continue
        x1, x2 = x((start - zero) / unit), x((end - zero) / unit)
        canvas.rect(x1, top, max(0.6, x2 - x1), bottom - top, _STATES.get(band.state, "#eeeeee"), 0.85)
        if (at := max(x1 + 3, label_end)) + 6.2 * len(band.state) <= max(x2, at + 1) or at < x2 - 4:
            width = 6.4 * len(band.state)
            if at + width <= right and (at + width <= x2 + 40 or x2 - x1 > 40):
                canvas.text(at, top - 6, band.state, 11, INK)
                label_end = at + width + 6
    for tick in y.ticks(5):
        canvas.line(left, y(tick), right, y(tick), "#d0d0d0", 0.6)
        canvas.text(left - 8, y(tick) + 4, f"{tick:,.10g}", 11, FAINT, "end")
    for tick in x.ticks(11):
        canvas.line(x(tick), bottom, x(tick), bottom + 5, FAINT)
        canvas.text(x(tick), bottom + 18, f"{tick:,.10g}", 11, FAINT, "middle")
    canvas.line(left, bottom, right, bottom, INK)
    canvas.line(left, top, left, bottom, INK)
    for i, mark in enumerate(marks):
        at = (mark.at - zero) / unit
        if x.low <= at <= x.high:
            canvas.line(x(at), top, x(at), bottom, INK, 1, "4 3")
            if names_at is not None:
                canvas.text(x(at) + 4, names_at + 14 + 14 * i, mark.name, 11)


def _overview(
    canvas: Canvas, flows: Sequence[PlotFlow], bands: Sequence[Band], marks: Sequence[Mark],
    span: tuple[float, float], zero: float, top: float,
) -> None:
    top, bottom = top + 30, top + 210
    low, high = span
    x = Scale(low - zero, high - zero, _LEFT, _WIDTH - _RIGHT)
    rates = [_rates(flow, low, high) for flow in flows]
    y = Scale(0, max((max(r) for r in rates if r), default=1.0) * 1.08, bottom, top)
    _frame(canvas, "The whole time: arrivals per second", x, y, (top, bottom), bands, marks, zero, 1.0)
    for i, rate in enumerate(rates):
        points = [(x(low - zero + (n + 0.5) * _BIN), y(value)) for n, value in enumerate(rate)]
        canvas.polyline(points, _colour(i), 1.3)
    canvas.text((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 36, "seconds", 12, anchor="middle")
    canvas.text(20, (top + bottom) / 2, "datagrams per second", 12, anchor="middle", turn=-90)


def _rates(flow: PlotFlow, low: float, high: float) -> list[float]:
    bins = [0] * max(1, int((high - low) / _BIN))
    for at in flow.arrivals.arrived_ns:
        n = int((at / 1e9 - low) / _BIN)
        if n < len(bins):
            bins[n] += 1
    return [count / _BIN for count in bins]


def _closeup(
    canvas: Canvas, flows: Sequence[PlotFlow], bands: Sequence[Band], marks: Sequence[Mark],
    window: tuple[float, float], zero: float, top: float,
) -> None:
    top += 30
    middle = top + _LANE * len(flows) + 6
    bottom = middle + 260
    first, last = round(window[0] * 1e9), round(window[1] * 1e9)
    x = Scale((window[0] - zero) * 1e3, (window[1] - zero) * 1e3, _LEFT, _WIDTH - _RIGHT)
    shown = []
    for flow in flows:
        pairs = zip(flow.arrivals.sent_ns, flow.arrivals.arrived_ns, strict=True)
        shown.append([(sent, at) for sent, at in pairs if first <= sent <= last])
    longest = max((at - sent for points in shown for sent, at in points), default=1_000_000) / 1e6
    y = Scale(0, max(1.0, longest * 1.08), bottom, middle)
    _frame(canvas, "The switch-over, close up", x, y, (top, bottom), bands, marks, zero, 1e-3, middle)
    canvas.line(_LEFT, middle, _WIDTH - _RIGHT, middle, INK, 0.8)
    every = max(1, sum(map(len, shown)) // _MAX_DOTS)
    for i, (flow, points) in enumerate(zip(flows, shown, strict=True)):
        lane = top + 4 + _LANE * i
        times = flow.arrivals.arrived_ns
        arrived = times[bisect_left(times, first) : bisect_right(times, last)]
        canvas.ticks((x(at / 1e6 - zero * 1e3) for at in arrived[::every]), lane, lane + _LANE - 4, _colour(i))
        canvas.dots(((x(sent / 1e6 - zero * 1e3), y((at - sent) / 1e6)) for sent, at in points[::every]), _colour(i))
    lost = [at for flow in flows for at in _lost(flow) if first <= at <= last]
    for at in lost[:_MAX_DOTS]:
        px = x(at / 1e6 - zero * 1e3)
        canvas.line(px - 3, bottom - 8, px + 3, bottom - 2, _LOST, 1.4)
        canvas.line(px - 3, bottom - 2, px + 3, bottom - 8, _LOST, 1.4)
    note = f"red crosses: {len(lost):,} lost here, at the time they were sent" if lost else "none was lost here"
    canvas.text(_WIDTH - _RIGHT, bottom + 36, note, 12, _LOST if lost else FAINT, "end")
    canvas.text((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 36, "milliseconds", 12, anchor="middle")
    canvas.text(_LEFT - 8, (top + middle) / 2 + 4, "arrivals", 11, FAINT, "end")
    canvas.text(20, (middle + bottom) / 2, "milliseconds under way,", 12, anchor="middle", turn=-90)
    canvas.text(35, (middle + bottom) / 2, "by time of sending", 11, FAINT, "middle", turn=-90)


def _lost(flow: PlotFlow) -> list[int]:
    """When the missing datagrams were sent, estimated from those sent next to them (monotonic nanoseconds)."""
    seen = dict(zip(flow.arrivals.seq, flow.arrivals.sent_ns, strict=True))
    if len(seen) < 2:
        return []
    known = sorted(seen)
    period = (seen[known[-1]] - seen[known[0]]) / max(1, known[-1] - known[0])
    times, before = [], known[0]
    for n in range(flow.sent):
        if n in seen:
            before = n
        else:
            times.append(round(seen[before] + (n - before) * period))
    return times
