"""Documents of the NVA as tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from .context import table

__all__ = [
    "directory",
    "event",
    "explained",
    "move",
    "moves",
    "network",
    "networks",
    "nve",
    "nves",
    "status",
    "vms",
]

Doc = dict[str, Any]
_STYLES = {
    "settled": "green",
    "aborted": "yellow",
    "failed": "red",
    "ok": "green",
    "degraded": "yellow",
    "failing": "red",
    "done": "green",
    "refused": "yellow",
    "denied": "red",
}


def styled(word: str) -> Text:
    """A state or status in its colour."""
    return Text(word, style=_STYLES.get(word, "cyan"))


def local(time: str | None) -> str | None:
    """An RFC 3339 time stamp in local time."""
    if time is None:
        return None
    at = datetime.fromisoformat(time).astimezone()
    return at.isoformat(sep=" ", timespec="milliseconds")[:23]


def clock(time: str) -> str:
    """The time of day of an RFC 3339 time stamp, local, with milliseconds."""
    return datetime.fromisoformat(time).astimezone().strftime("%H:%M:%S.%f")[:-3]


def duration(seconds: float | None) -> str | None:
    """Seconds in a handy unit."""
    if seconds is None:
        return None
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.3f} s" if seconds < 100 else f"{seconds:.0f} s"


# --- what is registered ---------------------------------------------------------------------------------------
def nves(items: Iterable[Doc]) -> Table:
    """NVEs, a line each."""
    return table(
        "",
        "NVE",
        "DATAPATH",
        "IPV4",
        "IPV6",
        "CONNECTED",
        "IN SYNC",
        "FAULT",
        "NETWORKS",
        rows=(
            (
                *(n[key] for key in ("name", "dpid", "ipv4", "ipv6", "connected", "in_sync")),
                _fault(n["fault"]),
                n["networks"],
            )
            for n in items
        ),
    )


def _fault(fault: Doc | None) -> Text:
    if fault is None:
        return Text("-")
    return Text(f"OpenFlow error {fault['type']}/{fault['code']}, {fault['times']}x", style="red")


def nve(document: Doc) -> list[Table]:
    """One NVE with its ports."""
    generation = document["generation"]
    ports = table(
        "",
        "PORT",
        "NUMBER",
        "UP",
        rows=((p["name"], p["number"], p["up"]) for p in document["ports"]),
        right=["NUMBER"],
    )
    facts = _facts(
        ("NVE", document["name"]),
        ("datapath", document["dpid"]),
        ("underlay", [a for a in (document["ipv4"], document["ipv6"]) if a]),
        ("connected", document["connected"]),
        ("in sync", document["in_sync"]),
        ("fault", _fault(document["fault"])),
        ("being evacuated", f"evacuation {document['evacuation']}" if document["evacuation"] else None),
        ("tunnel port", document["tunnel"]),
        ("without Ethernet", document["routed"]),
        ("locator", _by(document["locator"], "by port", document["ila"])),
        ("next hop", document["next_hop"]),
        ("networks", document["networks"]),
        ("generation", f"{generation['realised']} of {generation['programmed']} acknowledged"),
    )
    return [facts, ports] if document["ports"] else [facts]


def _by(what: object, how: str, port: object) -> str | None:
    return None if what is None else f"{what} {how} {port if port is not None else '(not there)'}"


def networks(items: Iterable[Doc]) -> Table:
    """Networks, a line each."""
    return table(
        "",
        "NETWORK",
        "VNI",
        "KIND",
        "TENANT",
        "DISTRIBUTION",
        "ANNOUNCEMENTS",
        "UNKNOWN",
        "ADMIT",
        "MTU",
        "INTERFACES",
        "MEMBERS",
        rows=(
            (
                n["name"],
                n["vni"],
                n["kind"],
                n["tenant"],
                *(n["policy"][k] for k in ("distribution", "announcements", "unknown", "admit", "mtu")),
                n["interfaces"],
                n["members"],
            )
            for n in items
        ),
        right=["VNI", "MTU", "INTERFACES"],
    )


def network(document: Doc) -> list[Table]:
    """One network, and what is routed in it."""
    gateway = document["gateway"]
    if gateway is None:
        return [networks([document])]
    leave = document["policy"]["leave"]
    facts = _facts(
        ("gateway", [gateway[key] for key in ("ipv4", "ipv6", "mac") if gateway[key]]),
        ("router", document["router"]),
        ("moved by ILA", document["sir"]),
        ("addresses that are left", f"{leave['answer']}, for {leave['seconds']} s"),
    )
    subnets = table("", "SUBNET", "NVE", rows=((s["prefix"], s["nve"]) for s in document["subnets"]))
    return [networks([document]), facts, subnets] if document["subnets"] else [networks([document]), facts]


def vms(items: Iterable[Doc]) -> Table:
    """VMs, a line for each interface."""
    return table(
        "",
        "VM",
        "TENANT",
        "INTERFACE",
        "NETWORK",
        "MAC",
        "ADDRESSES",
        "NVE",
        "PORT",
        "BOUND",
        "EPOCH",
        "MOVE",
        rows=(
            (
                vm["name"],
                vm["tenant"],
                i["name"],
                i["network"],
                i["mac"],
                i["ipv4"] + i["ipv6"],
                i["nve"],
                i["port"],
                "frozen" if i["frozen"] else i["bound"],
                i["epoch"],
                vm["move"],
            )
            for vm in items
            for i in vm["interfaces"]
        ),
        right=["EPOCH", "MOVE"],
    )


def names(items: Iterable[Doc]) -> Table:
    """Names in the domain name system."""
    return table(
        "",
        "NAME",
        "TENANT",
        "ADDRESSES",
        "STATE",
        "SINCE",
        "INTERFACES",
        "WHY",
        rows=(
            (
                name["name"],
                name["tenant"],
                name["wanted"],
                "published" if name["published"] else "failing" if name["failure"] else "waiting",
                name["since"],
                name["interfaces"],
                None if name["failure"] is None else name["failure"]["why"],
            )
            for name in items
        ),
    )


def directory(items: Iterable[Doc]) -> Table:
    """Entries of the directory."""
    return table(
        "",
        "NETWORK",
        "MAC",
        "ADDRESSES",
        "VM",
        "NVE",
        "UNDERLAY",
        "PORT",
        "EPOCH",
        "SINCE",
        rows=(
            (
                e["network"],
                e["mac"],
                e["ipv4"] + e["ipv6"],
                f"{e['vm']}/{e['interface']}",
                e["nve"],
                [a for a in (e["nve_ipv4"], e["nve_ipv6"]) if a],
                e["port"],
                e["epoch"],
                local(e["since"]),
            )
            for e in items
        ),
        right=["EPOCH"],
    )


# --- moves ----------------------------------------------------------------------------------------------------
def moves(items: Iterable[Doc]) -> Table:
    """Moves, a line each."""
    return table(
        "",
        "MOVE",
        "VM",
        "KIND",
        "FROM",
        "TO",
        "STATE",
        "CREATED",
        "TOOK",
        "REDIRECTED",
        "UNACCOUNTED",
        rows=(
            (
                m["id"],
                m["vm"],
                m["kind"],
                m["source"],
                m["destination"],
                styled(m["state"]),
                local(m["created"]),
                duration(sum(s["seconds"] for s in m["history"][:-1])) if not m["open"] else None,
                m["ledger"]["redirected"]["packets"],
                m["ledger"]["unaccounted"],
            )
            for m in items
        ),
        right=["MOVE", "TOOK", "REDIRECTED", "UNACCOUNTED"],
    )


def move(document: Doc, now: float | None = None) -> list[Table | Text]:
    """A move: its history, barriers and ledger. ``now``: Unix time, to show how long the present state lasts."""
    title = Text.assemble(
        (f"move {document['id']}: ", "bold"),
        f"{document['vm']} {document['source']} -> {document['destination']} ",
        f"({document['kind']}, by {document['trigger']}) ",
        styled(document["state"]),
    )
    parts: list[Table | Text] = [title]
    if document["error"]:
        parts.append(Text(document["error"], style="red"))
    parts += [Text(f"{c['interface']}: {c['old']} becomes {c['new']}") for c in document["addresses"]]
    if document["addresses"] or document["connections"] != "keep":
        parts.append(Text(f"connections: {document['connections']}"))
    parts.append(_history(document, now))
    parts += _progress(document)
    probes: dict[str, float] = document["ledger"]["probes"]
    if probes:
        slowest = max(probes, key=lambda path: probes[path])
        parts.append(Text(f"{len(probes)} paths proven, {slowest} last, after {duration(probes[slowest])}"))
    parts.append(_ledger(document["ledger"]))
    return parts


def _history(document: Doc, now: float | None) -> Table:
    rows = []
    for step in document["history"]:
        seconds = step["seconds"]
        if seconds is None and document["open"] and now is not None:
            seconds = max(0.0, now - step["at"])
        rows.append((styled(step["state"]), clock(step["time"]), duration(seconds), step["why"]))
    return table("", "STATE", "SINCE", "FOR", "WHY", rows=rows, right=["FOR"])


def _progress(document: Doc) -> list[Table]:
    """What each NVE has acknowledged."""
    barriers: dict[str, float] = document["ledger"]["barriers"]
    generations: dict[str, Doc] = document["generation"]["nves"]
    names = sorted({*barriers, *generations, *document["unconfirmed"]})
    if not names:
        return []
    rows = []
    for name in names:
        generation = generations.get(name)
        acknowledged = generation is None or generation["realised"] >= generation["programmed"]
        role = {document["source"]: "source", document["destination"]: "destination"}
        rows.append(
            (
                name,
                role.get(name, "correspondent"),
                Text("no", style="yellow")
                if name in document["unconfirmed"] or not acknowledged
                else Text("yes", style="green"),
                duration(barriers.get(name)),
            )
        )
    return [table("", "NVE", "ROLE", "ACKNOWLEDGED", "BARRIER AFTER", rows=rows, right=["BARRIER AFTER"])]


def _ledger(ledger: Doc) -> Table:
    rows: list[tuple[object, ...]] = [
        ("redirected at the source", ledger["redirected"]["packets"], ledger["redirected"]["bytes"]),
        ("arrived at the destination", ledger["arrived"]["packets"], ledger["arrived"]["bytes"]),
        ("not accounted for", _mark(ledger["unaccounted"]), None),
        ("lost at the source", _mark(ledger["lost"]["packets"]), ledger["lost"]["bytes"]),
        ("held in the NVA", ledger["held"]["packets"], None),
        ("lost while held", _mark(ledger["held"]["lost"]), None),
        ("late", ledger["late_packets"], None),
    ]
    rows += [(f"stale from {s['nve']}, corrected {s['corrected']}x", s["packets"], s["bytes"]) for s in ledger["stale"]]
    title = "LEDGER" if ledger["closed"] else "LEDGER (counting)"
    if ledger["redirected"]["packets"] and not ledger["exact"]:
        unread = f": {', '.join(ledger['forgetful'])} lost counters or could not be read"
        title += ", estimated" + (unread if ledger["forgetful"] else "")  # otherwise the source has no meters
    return table("", title, "PACKETS", "BYTES", rows=rows, right=["PACKETS", "BYTES"])


def _mark(packets: int) -> Text:
    return Text(str(packets), style="red" if packets else "green")


# --- the rest -------------------------------------------------------------------------------------------------
def explained(document: Doc) -> list[Table | Text]:
    """Where a VM is and which flows carry its packets."""
    parts: list[Table | Text] = []
    for i in document["interfaces"]:
        parts.append(
            Text.assemble(
                (f"{document['vm']}/{i['name']} ", "bold"),
                f"{i['mac']} in {i['network']} (VNI {i['vni']}) is at ",
                (f"{i['nve']} port {i['port']}", "bold"),
                "" if i["bound"] else (" (the port is not there)", "yellow"),
                f" since {local(i['since'])}, epoch {i['epoch']}",
                f", move {document['move']} is open" if document["move"] else "",
            )
        )
        parts.append(
            table(
                "",
                "ON",
                "PACKETS FROM",
                "GO TO",
                "COUNTED",
                "TABLE",
                "PRIORITY",
                "MATCH",
                "ACTIONS",
                rows=(
                    (
                        f["nve"],
                        f["carries"] or "(shadowed)",
                        f["to"],
                        f["packets"],
                        f["table"],
                        f["priority"],
                        f["match"],
                        f["actions"],
                    )
                    for f in i["flows"]
                ),
                right=["COUNTED", "TABLE", "PRIORITY"],
            )
        )
    parts += [Text(f"{u['nve']} could not be read: {u['why']}", style="yellow") for u in document["unread"]]
    return parts


def status(document: Doc) -> Table:
    """How the NVA is; no more than that for who does not see the whole."""
    count = document["nves"]
    if count is None:
        return _facts(("status", styled(document["status"])))
    return _facts(
        ("status", styled(document["status"])),
        ("credentials", document["credentials"]),
        ("version", document["version"]),
        ("up for", duration(document["uptime"])),
        ("store", document["store"]),
        ("NVEs", f"{count['registered']} registered, {count['connected']} connected, {count['in_sync']} in sync"),
        ("networks", document["networks"]),
        ("VMs", document["vms"]),
        ("open moves", document["moves_open"]),
    )


def event(document: Doc) -> Text:
    """An event in a line."""
    fields = " ".join(
        f"{name}={json.dumps(value) if isinstance(value, str) and ' ' in value else value}"
        for name, value in document["fields"].items()
        if value not in (None, "")
    )
    return Text.assemble((clock(document["time"]), "dim"), " ", (document["kind"], "cyan"), " ", fields)


def verified(document: Doc) -> list[Text]:
    """What a comparison of flows found."""
    name, found = document["nve"], document["differences"]
    verdict = Text(f"{name}: {document['flows']} flows, ")
    verdict.append(
        "in sync" if document["in_sync"] else f"{len(found)} differences", "green" if document["in_sync"] else "red"
    )
    lines = [verdict, *(Text(f"  {line}") for line in found)]
    lines += [Text(f"  tunnel to tunnel: {line}", style="yellow") for line in document["tunnel_to_tunnel"]]
    return lines


def _facts(*facts: tuple[str, object]) -> Table:
    made = table("", "", "", rows=facts)
    made.show_header = False
    return made
