"""Tables of figures, as text, as Markdown, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Part:
    """One table: what was measured, and the figures behind it in ``data``."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


def number(value: float) -> str:
    """A count with thousands separated."""
    return f"{value:,.0f}"


def ratio(value: float) -> str:
    """A ratio with as many decimals as it deserves."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}" if value < 2 else f"{value:.1f}"


def milliseconds(seconds: float) -> str:
    """A duration in milliseconds."""
    return f"{seconds * 1e3:.1f}"


def text(parts: Sequence[Part], facts: Mapping[str, str]) -> str:
    """For a terminal."""
    lines = [", ".join(f"{name}: {value}" for name, value in facts.items()), ""]
    for part in parts:
        table = [list(part.columns), *map(list, part.rows)]
        widths = [max(len(row[i]) for row in table) for i in range(len(part.columns))]
        numeric = [all(_numeric(row[i]) for row in part.rows) for i in range(len(part.columns))]
        lines += [part.title, "=" * len(part.title)]
        for n, row in enumerate(table):
            cells = [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True)]
            lines.append("  ".join(cells).rstrip())
            if not n:
                lines.append("  ".join("-" * w for w in widths))
        lines += [*part.notes, ""]
    return "\n".join(lines)


def markdown(parts: Sequence[Part], facts: Mapping[str, str]) -> str:
    """For a document."""
    lines = []
    for part in parts:
        numeric = [all(_numeric(row[i]) for row in part.rows) for i in range(len(part.columns))]
        lines += [f"**{part.title}**", "", "| " + " | ".join(part.columns) + " |"]
        lines.append("|" + "|".join("--:" if right else "---" for right in numeric) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in part.rows]
        lines += ["", *(f"{note}\n" for note in part.notes)]
    lines.append("Measured: " + ", ".join(f"{name} {value}" for name, value in facts.items()) + ".")
    return "\n".join(lines)


def write_json(path: Path, parts: Sequence[Part], facts: Mapping[str, str]) -> None:
    """For programs."""
    document = {"facts": dict(facts), "parts": {part.name: {"title": part.title, **part.data} for part in parts}}
    path.write_text(json.dumps(document, indent=1) + "\n")


def _numeric(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).lstrip("-").isdigit() or cell in ("", "-")
