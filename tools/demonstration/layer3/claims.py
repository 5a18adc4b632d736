"""What the story claims, and whether it held. The verdict is made of nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Claim:
    """`words` say what ought to be so, `found` what was."""

    chapter: str
    words: str
    held: bool
    found: str = ""


@dataclass
class Claims:
    """All of them, and what was measured on the way, by chapter."""

    items: list[Claim] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    summary: str = ""  # what the closing line begins with where all is well

    def want(self, chapter: str, words: str, held: bool, found: object = "") -> bool:
        """Note a claim; returns whether it held."""
        self.items.append(Claim(chapter, words, bool(held), str(found)))
        return bool(held)

    def none(self, chapter: str, words: str, count: float) -> bool:
        """Claim that a count is 0."""
        return self.want(chapter, words, count == 0, f"{count:,}")

    def faults(self) -> list[str]:
        """What did not hold, in words."""
        return [f"not so: {one.words}" + (f" ({one.found})" if one.found else "") for one in self.items if not one.held]

    def verdict(self) -> str:
        """The closing line."""
        faults = self.faults()
        if faults:
            return f"FAILED: {'; '.join(faults)}."
        if not self.items:
            return "FAILED: nothing was shown."
        return f"PASSED: {self.summary}all {len(self.items)} claims held."

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "ok": bool(self.items) and not self.faults(),
            "verdict": self.verdict(),
            "claims": [asdict(one) for one in self.items],
            **self.measured,
        }
