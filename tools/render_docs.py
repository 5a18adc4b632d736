"""Fill the generated parts of docs/ from the code they describe.

    tools/render_docs.py          rewrite what is out of date
    tools/render_docs.py --check  say what is, and exit with 1
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ryu_vmm import config, dependencies, fates, mobility, signs  # noqa: E402
from ryu_vmm import tables as flow_tables  # noqa: E402
from ryu_vmm.edge import plan  # noqa: E402
from ryu_vmm.edge.host import Host  # noqa: E402
from ryu_vmm.model import MoveState  # noqa: E402

BOOKS = ROOT / "docs" / "internals" / "books.md"
TO_NVA = {
    "DROP", "RESOLVE", "ANNOUNCE", "LIFE", "MISS", "PROBE", "HOLD", "STALE", "ROUTER", "EXPIRED_TTL", "TOO_BIG",
    "UNREACHABLE", "HOP", "ANSWER", "ADVERTISE",
}
REASONS = {
    "BASE": "the skeleton of a table",
    "DROP": "drops and counts, by cause; what ports may not send is sampled to the NVA as well, through a meter",
    "NETWORK": "a network's peers and flooding",
    "INTERFACE": "an interface's admission and delivery",
    "RESOLVE": "an ARP request or a neighbor solicitation that no flow answers",
    "ANNOUNCE": "RARP, or an announcement on a port of nobody where a network believes any",
    "LIFE": "what a VM sends from a port where it is expected; what it announces where it may show up",
    "MISS": "a destination of a pull network that this NVE has not asked for yet",
    "PROBE": "a path probe that has crossed",
    "HOLD": "a packet that waits for the destination's port",
    "STALE": "a packet for a VM that has left in a cold move",
    "REDIRECT": "the redirect (sampled to the NVA while draining)",
    "MARK": "redirected packets arriving",
    "GONE": "the VM's port is gone and nobody has said where to",
    "ROUTER": "a packet to the gateway itself",
    "EXPIRED_TTL": "a routed packet whose TTL allows no further hop",
    "TOO_BIG": "a routed packet that is larger than its networks' MTU",
    "UNREACHABLE": "a routed packet for an address that nobody has, or that a task has left",
    "HOP": "a neighbor advertisement of the underlay, for ILA",
    "ANSWER": "an ARP request, answered here and now",
    "ADVERTISE": "a neighbor solicitation, answered here and now",
}


def tables() -> str:
    """The pipeline's tables."""
    rows = [f"| {t.number} | {t.name} | {t.question} |" for t in flow_tables.TABLES]
    return "\n".join(["| number | table | question it answers |", "|---|---|---|", *rows])


def reasons() -> str:
    """What flows are for."""
    rows = [
        f"| {why.name.lower()} | {'yes' if why.name in TO_NVA else ''} | {REASONS[why.name]} |"
        for why in flow_tables.Why
    ]
    return "\n".join(["| reason | to NVA | what it is |", "|---|---|---|", *rows])


def drops() -> str:
    """Causes of drops."""
    return ", ".join(f"`{cause.name.lower().replace('_', '-')}`" for cause in flow_tables.Drop) + "."


def transitions() -> str:
    """State against event."""
    states = [s for s in MoveState if not s.closed]
    lines = ["| event | " + " | ".join(states) + " |", "|---" * (len(states) + 1) + "|"]
    for event in mobility.MoveEvent:
        cells = []
        for state in states:
            step = mobility.step(state, event)
            does = ", ".join(step.do)
            if step.refuse:
                cells.append("refused")
            elif step.to is not None:
                cells.append(f"**{step.to}**" + (f": {does}" if does else ""))
            else:
                cells.append(does or "-")
        lines.append(f"| {event} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def edge() -> str:
    """What the README's `vmm nve setup` does."""
    made = plan.Edge("nve1", ("tcp:192.0.2.10:6653",), "1", "192.0.2.1")
    commands = "\n".join(Host().shown(step) for step in made.steps())
    return "\n".join(f"    {line}" for line in commands.splitlines())


def verdicts() -> str:
    """Signs of life and what follows from them."""
    given = list(itertools.product((False, True), (True, False)))
    words = {False: "not asked for", True: "asked for"}, {False: "port gone", True: "port up"}
    heads = [f"redirect {words[0][asked]}, source's {words[1][up]}" for asked, up in given]
    lines = ["| sign | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    rows = ([signs.TABLE[sign, asked, up] for asked, up in given] for sign in signs.Sign)
    lines += [f"| {sign} | " + " | ".join(row) + " |" for sign, row in zip(signs.Sign, rows, strict=True)]
    return "\n".join(lines)


def fates_of(kept: dict[str, fates.Kept]) -> str:
    """What becomes of things at a restart, and why that is enough."""
    lines = ["| name | at a restart | why that is enough |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {each.fate} | {each.why} |" for name, each in kept.items())])


def reads() -> str:
    """What the units of the pipeline are computed from."""
    lines = ["| unit | tables, and fields of theirs, that it reads |", "|---|---|"]
    for kind, rows in {"each": dependencies.EVERY, **dependencies.READS}.items():
        told = (f"`{row.table}`" + (f" ({row.fields})" if row.fields else "") for row in rows)
        lines.append(f"| {kind} | {', '.join(told) or 'nothing else'} |")
    return "\n".join(lines)


PARTS: dict[str, Callable[[], str]] = {
    "tables": tables,
    "reasons": reasons,
    "drops": drops,
    "transitions": transitions,
    "edge": edge,
    "verdicts": verdicts,
    "fates": lambda: fates_of(fates.TABLES),
    "timers": lambda: fates_of(fates.TIMERS),
    "reads": reads,
}


def rendered(text: str) -> str:
    """The text with its generated parts made anew."""

    def fill(found: re.Match[str]) -> str:
        return f"<!-- BEGIN {found[1]} -->\n{PARTS[found[1]]()}\n<!-- END {found[1]} -->"

    return re.sub(r"<!-- BEGIN (\w+) -->\n.*?<!-- END \1 -->", fill, text, flags=re.DOTALL)


def outputs() -> dict[Path, str]:
    """Every generated file with its content."""
    pages = (ROOT / "docs" / "architecture.md", ROOT / "docs" / "faults.md", BOOKS, ROOT / "README.md")
    return {**{page: rendered(page.read_text()) for page in pages}, ROOT / "docs" / "vmm.conf.sample": config.sample()}


def main() -> int:
    """Rewrite, or check."""
    stale = [path for path, text in outputs().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is out of date")
        if "--check" not in sys.argv:
            path.write_text(outputs()[path])
            print("  rewritten")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
