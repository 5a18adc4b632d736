"""What moves wait for, in words, with the command that ends the waiting."""

from __future__ import annotations

from collections.abc import Iterable

from ..waiting import Wait
from .words import Doc, clock

__all__ = ["hook", "ledgers", "left_open", "of_row", "shortly", "words"]


def words(document: Doc) -> str:
    """Say what a move waits for, until when, and the command that ends it, if there is one. Empty: for nothing."""
    what, on, number, vm = document["waiting_for"], document["waiting_on"], document["id"], document["vm"]
    if what is None:
        return ""
    named, command = _listed(on), ""
    match what:
        case Wait.SWITCHES:
            waits = f"answers of {named}" if on else "answers of switches"
        case Wait.PROBES:
            waits = f"probes between {named}" if on else "probes"
        case Wait.REDIRECT:
            waits = f"the hypervisor of {named} to say that {vm} is about to be paused"
            command = f"vmm move redirect {number}"
        case Wait.IN_FORCE:
            waits = f"the redirect at {named} to be in force; only then is {vm} to be paused"
        case Wait.ACTIVATE:
            waits = f"{vm} to announce itself at {named}, or the hypervisor to say that it runs there"
            command = f"vmm move activate {number}"
        case Wait.SILENCE:
            waits = f"silence: no packet redirected at {named}"
        case _:
            waits = str(what)
    if not document["open"]:
        waits += ", to close its ledger"
    until = f", until {clock(document['until'])}" if document["until"] else ""
    return f"move {number} waits for {waits}{until}" + (f": {command}" if command else "")


def hook(document: Doc) -> str:
    """The same, if it is for a person or a hypervisor to end it: by a hook. Else empty."""
    return words(document) if document["waiting_for"] in (Wait.REDIRECT, Wait.ACTIVATE) else ""


def shortly(row: Doc) -> str | None:
    """The command that a move waits for, else what it waits for and on whom, for tables. None: for nothing."""
    what = row["waiting_for"]
    if what is None:
        return None
    if what in (Wait.REDIRECT, Wait.ACTIVATE):
        return f"vmm move {what} {row['move']}"
    return f"{what}: {_listed(row['waiting_on'])}" if row["waiting_on"] else str(what)


def of_row(evacuation: Doc, row: Doc) -> Doc:
    """The move of an evacuation's VM, as far as words need it."""
    return {**row, "id": row["move"], "open": evacuation["open"]}


def ledgers(document: Doc) -> list[int]:
    """Numbers of the moves, of a move's or an evacuation's document, that still wait for something."""
    rows: Iterable[Doc] = document.get("vms") or ()
    found = [row["move"] for row in rows if row["waiting_for"] is not None]
    return [document["id"]] if document.get("waiting_for") is not None else found


def left_open(document: Doc) -> str:
    """Say whose ledgers are still open, and on which NVEs that depends."""
    rows = [document] if "waiting_on" in document else document["vms"]
    on = sorted({nve for row in rows for nve in row["waiting_on"]})
    numbers = ledgers(document)
    moves = ("moves " if len(numbers) > 1 else "move ") + _listed(map(str, numbers))
    return f"not all is counted: the ledger of {moves} waits for {_listed(on) or 'switches'}; see vmm move show"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
