"""The story from beginning to end, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from ryu_vmm.agent.faults import AgentError
from topologies import OverlayNet, TopologyError, netns
from topologies.specs import GATEWAY_MAC, Gateway

from .. import account, picture
from ..ending import Ending, Interrupted
from ..narrator import Narrator, complain
from ..options import Options
from ..overlay import everybody_reaches_everybody, left_behind
from . import carried, cast, connections, datagrams, renamed
from .claims import Claims
from .stage import Stage, overlay, played

CHAPTER = "stage"


def demonstrate(options: Options) -> int:
    """Run it; returns the exit code. Raises TopologyError, AgentError where it cannot even begin, OSError."""
    narrator, ending, claims = Narrator(quiet=options.json), Ending(), Claims()
    narrator.show()
    narrator.say("Tasks move between hosts; this is what happens to their addresses, connections and names", "bold")
    net: OverlayNet | None = None
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        with overlay(options.underlay, narrator) as (net, names), played(net, names) as stage:
            _introduce(stage, narrator, claims)
            _play(stage, options, narrator, claims)
            ending.closing()
    except Interrupted as exc:
        complain(f"{exc}: everything has been ended and removed")
        return 128 + exc.number
    left = left_behind(net)
    narrator.show()
    if claims.none(CHAPTER, "things left behind" + "".join(f", {one}" for one in left), len(left)):
        narrator.say("All processes ended, namespaces and files removed")
    document = {**claims.document(), "underlay": options.underlay, "rate": options.rate,
                "seconds": round(narrator.seconds, 1), "output": str(options.output.resolve())}
    (options.output / "account.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(document, indent=2))
    narrator.show()
    ok = not claims.faults()
    console = narrator.console
    console.print(claims.verdict(), style="bold green" if ok else "bold red", soft_wrap=not console.is_terminal)
    return 128 + ending.number if ending.number else int(not ok)


# --- what is what -----------------------------------------------------------------------------------------------------
def _introduce(stage: Stage, narrator: Narrator, claims: Claims) -> None:
    net, gateway = stage.net, Gateway()
    for nve in net.nves:
        addresses = " ".join(one.partition("/")[0] for one in (nve.ipv4, nve.ipv6) if one)
        here = [spec.name for spec in (*cast.guests(), *cast.tasks()) if spec.nve == nve.name]
        tunnels = "VXLAN, GRE" if nve.name in cast.ROUTED else "VXLAN"
        narrator.detail(nve.name, f"{addresses}, locator {nve.locator}, {tunnels}; {', '.join(here)}")
    narrator.detail("gateway", f"{gateway.ipv4} and {gateway.ipv6} at {gateway.mac}: every NVE is this router to its "
                    "own guests")
    narrator.detail("apps", f"network {cast.APPS.vni}: 10.1.N.0/24 and 2001:db8:1:N::/64 belong to nveN, so who moves "
                    f"gets other addresses ({cast.WEB}, {cast.MUTE})")
    narrator.detail("mobile", f"network {cast.MOBILE.vni}: 10.2.N.0/24 at nveN, and identifiers {cast.MOBILE.sir} that "
                    f"belong to no NVE; who moves keeps its addresses ({cast.CAMERA}, {cast.CHAT})")
    pings = everybody_reaches_everybody(net)
    narrator.say(f"Every guest reaches every other, also in the other network: {pings} pings, IPv4 and IPv6")
    seen = {vm.name: _neighbors(vm.namespace) for vm in net.vms}
    wanted = {(address, GATEWAY_MAC) for address in (gateway.ipv4, gateway.ipv6)}
    alike = all(found == wanted for found in seen.values())
    claims.want(CHAPTER, "every guest knows one neighbor, the gateway, which is the same everywhere", alike, seen)
    words = "one neighbor: the gateway, with one MAC everywhere" if alike else "MORE THAN THE GATEWAY, OR ANOTHER"
    narrator.detail("neighbors", f"each of {len(seen)} guests at {len(net.nves)} NVEs has {words}")


def _neighbors(namespace: str) -> set[tuple[str, str]]:
    rows: list[dict[str, Any]] = json.loads(netns.run(["ip", "-n", namespace, "-json", "neigh", "show"]))
    return {(row["dst"], row["lladdr"]) for row in rows if "lladdr" in row}


# --- the chapters -----------------------------------------------------------------------------------------------------
def _play(stage: Stage, options: Options, narrator: Narrator, claims: Claims) -> None:
    tables: list[RenderableType] = []
    try:
        tables.append(carried.tables(carried.run(stage.net, narrator, claims)))
        moved = datagrams.run(stage, options, narrator, claims)
        tables.append(account.tables(moved, narrator.console))
        carried_on = connections.run(stage, narrator, claims)
        tables += connections.tables(carried_on)
        followed = renamed.run(stage, narrator, claims)
        tables.append(renamed.tables(followed))
        named = max(one.named for one in followed)
        claims.summary = (
            f"{moved.outcome.sent:,} datagrams, {carried_on.records:,} records on {carried_on.total('connections')} "
            f"TCP connections, none lost, none doubled; names followed within {named * 1e3:.0f} ms; "
        )
    except (TopologyError, AgentError) as exc:
        narrator.say(f"It went wrong: {exc}", "red")
        claims.want(CHAPTER, "the story comes to its end", False, exc)
    _verify(stage.net, narrator, claims)
    narrator.show()
    for one in tables:
        narrator.show(one)
        narrator.show()
    if "datagrams" in claims.measured:
        for path in picture.write(moved, options.output):
            narrator.detail("picture", _short(path))
    narrator.detail("account", _short(options.output / "account.json"))


def _verify(net: OverlayNet, narrator: Narrator, claims: Claims) -> None:
    rest = net.need_rest()
    found = [rest.call("POST", f"/nves/{nve.name}/verify") for nve in net.nves]
    narrator.show()
    narrator.say("Every flow of every switch read back and compared with what the NVA wants there")
    for one in found:
        claims.none(CHAPTER, f"flows of {one['nve']} that differ from what is wanted", len(one["differences"]))
        claims.none(CHAPTER, f"flows of {one['nve']} from tunnel to tunnel", len(one["tunnel_to_tunnel"]))
        words = f"{one['flows']} flows, " + ("in sync" if one["in_sync"] else "NOT IN SYNC")
        words += ", none from tunnel to tunnel" if not one["tunnel_to_tunnel"] else ", TUNNEL TO TUNNEL LEFT"
        narrator.detail(one["nve"], words)
    claims.measured["nves"] = found


def _short(path: Path) -> str:
    """Relative to where the user is, if it is below."""
    full = path.resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)
