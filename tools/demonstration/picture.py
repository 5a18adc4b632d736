"""arrivals.svg, and arrivals.png where something is at hand that makes it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from topologies.traffic.plot import Band, PlotFlow, PlotMove, draw

from .account import Account, Moved


def write(account: Account, folder: Path) -> list[Path]:
    """Draw the arrivals of all flows with the moves' states. Returns what was written; OSError if it cannot be."""
    if not account.moved:
        return []
    moves = [_move(n, moved, account.clock) for n, moved in enumerate(account.moved, 1)]
    flows = [PlotFlow(flow.name, flow.arrivals, flow.count.sent) for flow in account.outcome.flows]
    rate = sum(flow.pair.rate for flow in account.outcome.flows)
    stops = [account.moved[0].report.source, *(moved.report.destination for moved in account.moved)]
    title = f"{account.moved[0].report.vm} moves from {' to '.join(stops)} under {rate:,.0f} datagrams/s"
    svg = folder / "arrivals.svg"
    svg.write_text(draw(title, flows, moves), encoding="utf-8")
    png = folder / "arrivals.png"
    png.unlink(missing_ok=True)  # of an earlier run
    return [svg, png] if _rasterise(svg, png) else [svg]


def _move(number: int, moved: Moved, clock: float) -> PlotMove:
    steps = moved.document["history"]
    bands = [Band(step["state"], step["at"] - clock, step["at"] + (step["seconds"] or 0.0) - clock) for step in steps]
    times = moved.report.times
    name = f"move {number}: {moved.report.source} to {moved.report.destination}"
    return PlotMove(name, bands[:-1] or bands, (times["paused"], times["resumed"]))


def _rasterise(svg: Path, png: Path) -> bool:
    converter = shutil.which("rsvg-convert")  # Debian package librsvg2-bin; no need to install it for this
    if converter is None:
        return False
    try:
        subprocess.run([converter, "--output", png, svg], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
