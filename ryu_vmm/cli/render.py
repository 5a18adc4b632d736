"""What the NVA holds and says, as tables for people; moves are in `moved`."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from . import tunnels
from .context import table
from .words import Doc, clock, duration, facts, local, styled

__all__ = [
    "directory",
    "event",
    "explained",
    "names",
    "network",
    "networks",
    "nve",
    "nves",
    "status",
    "verified",
    "vm",
    "vms",
]


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
                tunnels.trouble(n),
                n["networks"],
            )
            for n in items
        ),
    )


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
    about = facts(
        ("NVE", document["name"]),
        ("datapath", document["dpid"]),
        ("underlay", [a for a in (document["ipv4"], document["ipv6"]) if a]),
        ("connected", document["connected"]),
        ("in sync", document["in_sync"]),
        ("answers by itself", ", ".join(document["answers"]) or "-"),
        ("fault", tunnels.trouble(document)),
        ("being evacuated", f"evacuation {document['evacuation']}" if document["evacuation"] else None),
        ("tunnel port", document["tunnel"]),
        ("without Ethernet", document["routed"]),
        ("locator", _by(document["locator"], "by port", document["ila"])),
        ("next hop", document["next_hop"]),
        ("networks", document["networks"]),
        ("generation", f"{generation['realised']} of {generation['programmed']} acknowledged"),
    )
    return [about, *tunnels.broken(document["broken"]), *([ports] if document["ports"] else [])]


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
    about = facts(
        ("gateway", [gateway[key] for key in ("ipv4", "ipv6", "mac") if gateway[key]]),
        ("router", document["router"]),
        ("moved by ILA", document["sir"]),
        ("addresses that are left", f"{leave['answer']}, for {leave['seconds']} s"),
    )
    subnets = table("", "SUBNET", "NVE", rows=((s["prefix"], s["nve"]) for s in document["subnets"]))
    return [networks([document]), about, *([subnets] if document["subnets"] else [])]


def _shared(vm: Doc, interface: Doc, row: Doc) -> str:
    """An address or a MAC that interfaces share, and who holds it."""
    holder = row["holder"]
    here = holder == f"{vm['name']}/{interface['name']}"
    return f"{row.get('address', row['mac'])} ({'held' if here else 'at ' + holder if holder else 'at nobody'})"


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
                i["ipv4"] + i["ipv6"] + [_shared(vm, i, row) for row in (*i["shared"], *i["shared_macs"])],
                i["nve"],
                i["port"] if i["pending"] is None else f"{i['port']} ({i['pending']} pending)",
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


def vm(document: Doc) -> list[Table | Text]:
    """A VM, and what its ports were not admitted to send."""
    return [vms([document]), *(line for i in document["interfaces"] for line in _unadmitted(i))]


def _unadmitted(interface: Doc) -> list[Text]:
    return [
        Text(
            f"{interface['name']}: seen from this port and not admitted ({seen['cause']}): {seen['address']}, "
            f"{seen['packets']} packets, last at {local(seen['last'])}",
            style="yellow",
        )
        for seen in interface["unadmitted"]
    ]


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
        shared = [_shared({"name": document["vm"]}, i, row) for row in (*i["shared"], *i["shared_macs"])]
        if shared:
            parts.append(Text(f"  shares {', '.join(shared)}"))
        parts += _unadmitted(i)
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


def status(document: Doc) -> list[Table]:
    """How the NVA is; no more than that for who does not see the whole."""
    count = document["nves"]
    if count is None:
        return [facts(("status", styled(document["status"])))]
    about = facts(
        ("status", styled(document["status"])),
        ("credentials", document["credentials"]),
        ("version", document["version"]),
        ("up for", duration(document["uptime"])),
        ("store", document["store"]),
        ("NVEs", f"{count['registered']} registered, {count['connected']} connected, {count['in_sync']} in sync"),
        ("networks", document["networks"]),
        ("VMs", document["vms"]),
        ("open moves", document["moves_open"]),
        ("without a port to the underlay", count["lacking"] or None),
        ("tunnels that fail", document["tunnels"]["failed"] or None),
        ("not taken from the inventory file", "\n".join(document["inventory"]) or None),
    )
    return [about, *tunnels.broken(document["tunnels"]["paths"])]


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
