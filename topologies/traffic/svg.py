"""A small SVG writer: shapes, text, scales and axes. No more than `plot` needs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

FONT = "font-family='DejaVu Sans, Helvetica, Arial, sans-serif'"
INK, FAINT = "#222222", "#888888"


def number(value: float) -> str:
    """A coordinate, short: at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def tenths(value: float) -> str:
    """A coordinate with at most one decimal: enough for one of thousands of marks."""
    return f"{value:.1f}".removesuffix(".0")


class Canvas:
    """Collects elements; `text()` is the finished document."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def add(self, element: str) -> None:
        """Add an element as it is."""
        self._parts.append(element)

    def rect(self, x: float, y: float, w: float, h: float, fill: str, opacity: float = 1.0, extra: str = "") -> None:
        """A filled rectangle."""
        self.add(
            f"<rect x='{number(x)}' y='{number(y)}' width='{number(w)}' height='{number(h)}' fill='{fill}' "
            f"fill-opacity='{number(opacity)}' {extra}/>"
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, stroke: str = FAINT, width: float = 1, dash: str = ""
    ) -> None:
        """A straight line; `dash` as SVG's stroke-dasharray."""
        style = f" stroke-dasharray='{dash}'" if dash else ""
        self.add(
            f"<line x1='{number(x1)}' y1='{number(y1)}' x2='{number(x2)}' y2='{number(y2)}' "
            f"stroke='{stroke}' stroke-width='{number(width)}'{style}/>"
        )

    def polyline(self, points: Iterable[tuple[float, float]], stroke: str, width: float = 1.5) -> None:
        """A line through points."""
        path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self.add(f"<polyline points='{path}' fill='none' stroke='{stroke}' stroke-width='{number(width)}'/>")

    def area(self, points: Iterable[tuple[float, float]], fill: str) -> None:
        """The filled shape between points."""
        path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self.add(f"<polygon points='{path}' fill='{fill}'/>")

    def dots(self, points: Iterable[tuple[float, float]], fill: str, radius: float = 1.2) -> None:
        """Many dots of one colour as one path, which keeps the file small; those that would coincide are one."""
        path = "".join(f"M{x} {y}h0" for x, y in dict.fromkeys((tenths(x), tenths(y)) for x, y in points))
        if path:
            style = f"stroke='{fill}' stroke-width='{number(2 * radius)}' stroke-linecap='round'"
            self.add(f"<path d='{path}' {style} fill='none'/>")

    def rings(self, points: Iterable[tuple[float, float]], stroke: str, radius: float = 3.0) -> None:
        """Small circles."""
        for x, y in points:
            self.add(f"<circle cx='{tenths(x)}' cy='{tenths(y)}' r='{number(radius)}' stroke='{stroke}' "
                     f"stroke-width='1.4' fill='none'/>")

    def ticks(self, xs: Iterable[float], top: float, bottom: float, stroke: str, width: float = 0.8) -> None:
        """Many thin upright ticks of one colour as one path; those that would coincide are one."""
        path = "".join(f"M{x} {number(top)}V{number(bottom)}" for x in dict.fromkeys(tenths(x) for x in xs))
        if path:
            self.add(f"<path d='{path}' stroke='{stroke}' stroke-width='{number(width)}' fill='none'/>")

    def text(
        self, x: float, y: float, words: str, size: float = 12, fill: str = INK, anchor: str = "start",
        weight: str = "normal", turn: float = 0,
    ) -> None:
        """One line of text; `turn` in degrees around its anchor."""
        rotate = f" transform='rotate({number(turn)} {number(x)} {number(y)})'" if turn else ""
        self.add(
            f"<text x='{number(x)}' y='{number(y)}' {FONT} font-size='{number(size)}' fill='{fill}' "
            f"text-anchor='{anchor}' font-weight='{weight}'{rotate}>{escape(words)}</text>"
        )

    def document(self) -> str:
        """The whole SVG document."""
        size = f"width='{number(self.width)}' height='{number(self.height)}'"
        box = f"viewBox='0 0 {number(self.width)} {number(self.height)}'"
        return "\n".join([
            f"<svg xmlns='http://www.w3.org/2000/svg' {size} {box} role='img'>",
            f"<title>{escape(self.title)}</title>",
            "<rect width='100%' height='100%' fill='#ffffff'/>", *self._parts, "</svg>", "",
        ])


class Scale:
    """Values to coordinates, linearly."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = low, high if high > low else low + 1
        self._start, self._factor = start, (end - start) / (self.high - self.low)

    def __call__(self, value: float) -> float:
        return self._start + (value - self.low) * self._factor

    def ticks(self, about: int) -> list[float]:
        """Round values within the scale, `about` so many."""
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span / about))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if span / (power * factor) <= about)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(n * step, 10) + 0.0 for n in range(first, last + 1)]
