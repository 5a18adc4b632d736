"""The figures of all points as tables, from what the scenarios found."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.report import Part, milliseconds, number

from .changes import SECONDS, Changed
from .crises import Crisis
from .evacuation import Evacuated
from .forgery import Found as Forged
from .isolation import Isolated, Seen
from .layer3 import Size
from .planned import PlannedMove
from .queues import Paused
from .streams import Survived
from .tasks import TaskMove
from .unplanned import ALLOWED, REDIRECT_GONE, UnplannedMove


def _spread(values: Sequence[float], show: Callable[[float], str] = milliseconds) -> str:
    """Median, and the largest in brackets."""
    return f"{show(statistics.median(values))} ({show(max(values))})"


def _good(moves: Sequence[Any]) -> str:
    return f"{sum(not move.problems() for move in moves)} of {len(moves)}"


def planned(moves: Sequence[PlannedMove]) -> Part:
    """Point 1: planned hot moves."""
    groups: dict[tuple[int, str], list[PlannedMove]] = {}
    for move in moves:
        groups.setdefault((move.inside, move.underlay), []).append(move)
    everything = [(f"IPv{inside} over {underlay.replace('ip', 'IP')}", found)
                  for (inside, underlay), found in groups.items()]
    everything.append(("all", list(moves)))
    rows = []
    for name, found in everything:
        ledgers = [move.ledger for move in found]
        rows.append([
            name, _good(found), number(sum(move.traffic.sent for move in found)),
            number(sum(move.traffic.lost for move in found)), number(sum(move.traffic.duplicated for move in found)),
            number(sum(ledger["redirected"]["packets"] for ledger in ledgers)),
            number(sum(ledger["arrived"]["packets"] for ledger in ledgers)),
            number(sum(ledger["unaccounted"] for ledger in ledgers)),
            f"{sum(one.agrees for move in found for one in move.redirected)} of "
            f"{sum(len(move.redirected) for move in found)}",
            _spread([move.report.downtime for move in found]), _spread([move.convergence for move in found]),
        ])
    columns = [
        "planned hot moves", "without any fault", "datagrams sent", "lost", "duplicated", "redirected (ledger)",
        "arrived (ledger)", "unaccounted", "ledger fits receivers", "paused, ms", "last barrier after, ms",
    ]
    notes = [
        "2,000 datagrams/s in each of four directions, counted at the receivers; 'ledger fits receivers': for each "
        "correspondent NVE the ledger's number lies within what the datagrams' own times allow. Median (largest).",
    ]
    data = {"moves": [
        {"name": move.name, "problems": move.problems(), "sent": move.traffic.sent, "lost": move.traffic.lost,
         "duplicated": move.traffic.duplicated, "reordered": move.traffic.reordered, "ledger": move.ledger,
         "report": move.report.as_dict(), "sender_lateness": move.traffic.sender_lateness,
         "agreement": [vars(one) for one in move.redirected]}
        for move in moves
    ]}
    return Part("planned", "1. Planned hot moves: nothing lost, nothing doubled", columns, rows, notes, data)


def unplanned(moves: Sequence[UnplannedMove]) -> Part:
    """Point 2: moves by announcement only."""
    groups: dict[str, list[UnplannedMove]] = {}
    for move in moves:
        groups.setdefault(f"{move.announce}, {move.policy}", []).append(move)
    groups["all"] = list(moves)
    rows = []
    for name, found in groups.items():
        losses = [loss for move in found for loss in move.losses]
        rows.append([
            name, _good(found), _spread([loss.window for loss in losses]),
            f"{sum(not loss.beyond for loss in losses)} of {len(losses)}",
            f"{number(sum(loss.beyond for loss in losses))} of {number(sum(loss.lost for loss in losses))}",
            _spread([loss.excess for loss in losses]), _spread([move.heard for move in found]),
            _spread([move.confirmed for move in found]), _spread([move.gone_after for move in found], "{:.2f}".format),
            f"{sum(move.gone_after <= REDIRECT_GONE for move in found)} of {len(found)}",
        ])
    columns = [
        "announcement, who is believed", "without any fault", "port gone to announcement, ms",
        f"flows within {ALLOWED * 1e3:g} ms", "lost beyond of lost", "beyond by, ms", "NVA acts after, ms",
        "last barrier after, ms", "redirect gone after, s", f"within {REDIRECT_GONE:g} s",
    ]
    notes = [
        "Losses of flows to the moving VM at 1,000 datagrams/s; 'beyond': datagrams that would have arrived later than "
        f"{ALLOWED * 1e3:g} ms after the announcement left the VM. Open vSwitch spaces its own revalidations 5 ms "
        "apart. Median (largest).",
    ]
    data = {"moves": [
        {"name": move.name, "problems": move.problems(), "losses": [{**vars(loss), "excess": loss.excess}
         for loss in move.losses], "gone_after": move.gone_after, "heard": move.heard, "confirmed": move.confirmed,
         "ledger": move.document["ledger"], "report": move.report.as_dict(),
         "sender_lateness": move.traffic.sender_lateness}
        for move in moves
    ]}
    return Part("unplanned", "2. Unplanned moves: what is lost beyond the gap", columns, rows, notes, data)


def streams(found: dict[str, Survived]) -> Part:
    """Point 3: connections that survive."""
    rows, data = [], {}
    for underlay, one in found.items():
        rows.append([
            f"over {underlay.replace('ip', 'IP')}", f"{len(one.moves)} in {one.seconds:.0f} s",
            f"{sum(not stream.errors for stream in one.streams)} of {len(one.streams)}", number(one.records),
            str(len([error for stream in one.streams for error in stream.errors])), number(one.retransmitted),
            milliseconds(one.stall),
        ])
        data[underlay] = {
            "problems": one.problems(), "moves": [move.as_dict() for move in one.moves],
            "streams": [vars(stream) for stream in one.streams],
        }
    columns = [
        "TCP", "moves in a row", "connections alive", "records intact", "errors", "segments sent again",
        "longest wait of a stream, ms",
    ]
    notes = ["Four checksummed streams (200 records/s of 1,000 bytes both ways) and two idle connections."]
    return Part("streams", "3. Connections survive", columns, rows, notes, data)


def switches(checked: int, wrong: Sequence[str]) -> Part:
    """Point 4: the switches after every move."""
    rows = [[number(checked), number(len(wrong))]]
    return Part(
        "switches", "4. After every move, every switch holds exactly what it should",
        ["full comparisons of a switch's flows", "with a difference or a tunnel-to-tunnel flow"], rows,
        data={"comparisons": checked, "wrong": list(wrong)},
    )


def isolation(quiet: dict[str, Isolated], leaked: Seen) -> Part:
    """Point 5: networks with the same addresses."""
    rows, data = [], {}
    for name, one in quiet.items():
        rows.append([
            name, number(one.traffic.sent), number(one.broadcasts), number(sum(one.seen.questions.values())),
            number(len(one.seen.foreign) + one.traffic.foreign), number(one.lost), number(one.doubled),
        ])
        data[name] = {"problems": one.problems(), "moves": [move.as_dict() for move in one.moves],
                      "broadcasts": one.broadcasts, "lost": one.lost, "doubled": one.doubled,
                      "foreign": one.seen.foreign}
    rows.append(["with a leak made on purpose", "", "", "", number(len(leaked.foreign)), "", ""])
    columns = [
        "two networks, same addresses", "datagrams to one", "to all or a group (x receivers)", "questions seen",
        "frames of the other network", "broadcasts lost", "broadcasts doubled",
    ]
    notes = ["Both networks' VMs move at the same time. Listened for below the VMs' IP stacks."]
    data["leak"] = {"seen": dict(leaked.foreign_kinds)}
    return Part("isolation", "5. Networks never see each other's packets", columns, rows, notes, data)


def _killed(away: Sequence[float]) -> str:
    times = ", ".join(f"{seconds:.1f}" for seconds in away)
    return f", NVA killed {len(away)} times, away for {times} s" if away else ""


def evacuations(found: Sequence[Evacuated]) -> Part:
    """Point 6: an NVE evacuated with one request."""
    rows = []
    for one in found:
        document, traffic = one.report.document, one.traffic
        rows.append([
            one.underlay.replace("ip", "IP") + _killed(one.away),
            str(one.parallel), f"{document['counts']['moved']} of {document['total']}",
            " + ".join(str(n) for _, n in sorted(one.spread.items())), number(traffic.sent), number(traffic.lost),
            number(traffic.duplicated), number(one.total("redirected", "packets")), number(one.total("unaccounted")),
            f"{one.report.seconds:.1f}", f"{document['total'] / one.report.seconds:.1f}", _spread(one.pauses),
        ])
    columns = [
        "evacuation over", "at a time", "VMs moved", "to each NVE", "datagrams sent", "lost", "duplicated",
        "redirected (ledgers)", "unaccounted", "took, s", "VMs/s", "VM paused, ms",
    ]
    notes = [
        "One request moves all VMs off an NVE. Each receives 40 datagrams/s from a VM elsewhere, sends 20/s back and "
        "20/s to a VM that moves as well, IPv4 and IPv6 in turn. Until every redirect is gone again. Median (largest).",
    ]
    data = {"evacuations": [
        {"name": one.name, "problems": one.problems(), "sent": one.traffic.sent, "lost": one.traffic.lost,
         "duplicated": one.traffic.duplicated, "seconds": one.report.seconds, "away": one.away,
         "most_at_once": one.report.most_at_once, "pauses": one.pauses, "spread": one.spread,
         "document": one.report.document, "ledgers": one.ledgers, "sender_lateness": one.traffic.sender_lateness}
        for one in found
    ]}
    return Part("evacuation", "6. An NVE evacuated with one request", columns, rows, notes, data)


def forgery(found: Forged) -> Part:
    """Forgeries tried and believed."""
    rows = [
        [row.name, number(row.kinds), number(row.tried), number(row.believed), number(row.counted), number(row.heard)]
        for row in found.rows
    ]
    rows.append(["all", *(
        number(sum(getattr(row, name) for row in found.rows))
        for name in ("kinds", "tried", "believed", "counted", "heard")
    )])
    columns = ["forgeries from", "kinds", "tried", "believed", "counted by the switches", "reported in events"]
    notes = ["Believed: a directory entry or a move changed, or a guest received it. What the underlay forges and what "
             "hides behind other headers is counted and not reported; packets that are no VXLAN Open vSwitch drops "
             "itself, uncounted here."]
    if found.traffic is not None:
        notes.append(f"Meanwhile {number(found.traffic.sent)} datagrams between two guests: {found.traffic.lost} lost, "
                     f"{found.traffic.duplicated} doubled.")
    if found.flood is not None:
        notes.append(f"Of the flood {number(found.flood[0])} packets reached the NVA, in {found.flood[1]:.1f} s.")
    data = {"problems": found.problems(), "rows": [row.as_dict() for row in found.rows]}
    return Part("forgery", "7. Forgeries", columns, rows, notes, data)


_CARRIED = {"vxlan": "VXLAN", "gre": "without Ethernet", "plain": "ILA"}


def sizes(found: Sequence[Size]) -> Part:
    """Bytes per packet on the underlay."""
    ways = list(dict.fromkeys((one.underlay, one.expected) for one in found))
    rows = []
    for inside, payload in dict.fromkeys((one.inside, one.payload) for one in found):
        alike = {(one.underlay, one.expected): one for one in found if (one.inside, one.payload) == (inside, payload)}
        packets = sorted({one.packet for one in alike.values()})
        cells = [f"{alike[way].frame} (+{alike[way].overhead})" if way in alike else "" for way in ways]
        rows.append([f"IPv{inside}, {payload} bytes", "/".join(map(str, packets)), *cells])
    columns = [
        "UDP payload", "IP packet", *(f"{_CARRIED[how]} over {under.replace('ip', 'IP')}" for under, how in ways),
    ]
    count = sum(one.sent for one in found)
    wrong = sum(len(one.problems()) for one in found)
    notes = [
        "Bytes of the frame on the underlay, with its Ethernet header and without a check sequence; in brackets what "
        f"is added to the IP packet and that header. {number(count)} datagrams, seen leaving one NVE and arriving at "
        f"the other; every checksum outside and inside verified, and by the receiving kernel: {wrong} faults.",
    ]
    data = {"sizes": [{**vars(one), "problems": one.problems()} for one in found]}
    return Part("sizes", "8. Layer 3: bytes per packet on the underlay", columns, rows, notes, data)


def changes(found: Sequence[Changed]) -> Part:
    """Tasks whose addresses change."""
    rows = []
    for answer in dict.fromkeys(one.answer for one in found):
        alike = [one for one in found if one.answer == answer]
        limited = [one.limited for one in alike if one.limited]
        rows.append([
            answer, _good(alike), _spread([one.named for one in alike]),
            number(sum(one.sent * len(one.forwarded) for one in alike)),
            number(sum(sum(one.forwarded.values()) for one in alike)),
            number(sum(sum(one.told.values()) for one in alike)),
            f"{number(min(limited))} to {number(max(limited))}" if limited else "",
        ])
    columns = [
        "old address", "without any fault", "name follows, ms after activation", "datagrams to it", "forwarded",
        "answered 'unreachable'", "answers to 4,000 at once",
    ]
    notes = [
        "Moves of a task to the next NVE and to the addresses of its subnet, IPv4 and IPv6 at once, over IPv4 and over "
        "IPv6. The name: from the NVA's step to the first answer of BIND with just the new ones; median (largest). "
        f"The old addresses: for {SECONDS} s as the task's policy says, then unreachable like any that nobody has.",
    ]
    data = {"changes": [{**vars(one), "problems": one.problems()} for one in found]}
    return Part("changes", "10. Layer 3: addresses change, and names with them", columns, rows, notes, data)


def tasks(moves: Sequence[TaskMove]) -> Part:
    """Moves of tasks that keep their addresses."""
    groups: dict[str, list[TaskMove]] = {}
    for move in moves:
        name = f"{move.how}, IPv{move.inside} over {move.underlay.replace('ip', 'IP')}"
        groups.setdefault(name, []).append(move)
    groups["all"] = list(moves)
    rows = []
    for name, found in groups.items():
        ledgers = [move.ledger for move in found]
        looked = [move for move in found if move.carried is not None]
        rows.append([
            name, _good(found), number(sum(move.traffic.sent for move in found)),
            number(sum(move.traffic.lost for move in found)), number(sum(move.traffic.duplicated for move in found)),
            number(sum(ledger["redirected"]["packets"] for ledger in ledgers)),
            number(sum(ledger["unaccounted"] for ledger in ledgers)),
            number(sum(sum((move.carried or {}).values()) for move in looked)),
            number(sum(len(move.wrong_sums or ()) for move in looked)),
            _spread([move.report.downtime for move in found]),
            _spread([max(ledger["barriers"].values()) for ledger in ledgers]),
        ])
    columns = [
        "tasks move by", "without any fault", "datagrams sent", "lost", "duplicated", "redirected (ledger)",
        "unaccounted", "frames verified on the underlay", "wrong checksums", "paused, ms", "last barrier after, ms",
    ]
    notes = [
        "2,000 datagrams/s in each of four directions between the task and two others, counted at the receivers. The "
        "task goes round three NVEs, one of which can only VXLAN. Median (largest).",
    ]
    data = {"moves": [
        {"name": move.name, "problems": move.problems(), "sent": move.traffic.sent, "lost": move.traffic.lost,
         "duplicated": move.traffic.duplicated, "reordered": move.traffic.reordered, "ledger": move.ledger,
         "carried": move.carried, "report": move.report.as_dict(), "sender_lateness": move.traffic.sender_lateness}
        for move in moves
    ]}
    return Part("tasks", "9. Layer 3: tasks move, and nothing is lost or doubled", columns, rows, notes, data)


def crises(found: Sequence[Crisis]) -> Part:
    """Tasks that move while things break."""
    names = {"none": "nothing", "killed": "the NVA, killed and started", "cut": "an edge's control channel, cut"}
    rows = []
    for what, name in [*names.items(), ("", "all")]:
        some = [one for one in found if one.what == what or not what]
        if some:
            pauses = [report.downtime for one in some for report in one.reports]
            rows.append([
                name, _good(some), number(len(pauses)), number(sum(one.asked for one in some)),
                number(sum(one.traffic.sent for one in some)), number(sum(one.traffic.lost for one in some)),
                number(sum(one.traffic.duplicated for one in some)), _spread(pauses),
            ])
    columns = [
        "what breaks meanwhile", "rounds without any fault", "moves", "asked for", "datagrams sent", "lost",
        "duplicated", "paused, ms",
    ]
    notes = [
        "In every round two to six tasks move at once, by host routes and by ILA, each with 200 datagrams/s each way "
        "with two others behind the same router. Refused requests are made again. Median (largest).",
    ]
    data = {"rounds": [
        {"number": one.number, "what": one.what, "problems": one.problems(), "sent": one.traffic.sent,
         "lost": one.traffic.lost, "duplicated": one.traffic.duplicated, "asked": one.asked,
         "moves": [report.as_dict() for report in one.reports]}
        for one in found
    ]}
    return Part("crises", "11. Layer 3: tasks move while things break", columns, rows, notes, data)


def queues(moves: Sequence[Paused]) -> Part:
    """Point 12: pauses that outlast a tap's queue."""
    rows = [
        [
            number(move.queue), f"{move.report.downtime:.2f}", number(move.traffic.sent), number(move.lost),
            number(move.told), "yes" if move.document["ledger"]["exact"] else "no", "; ".join(move.remedies) or "none",
        ]
        for move in moves
    ]
    columns = [
        "tap's queue, frames", "paused, s", "datagrams sent", "lost (receivers)", "lost (ledger)", "exact",
        "what the ledger advises",
    ]
    notes = [
        "A planned move under 2,000 datagrams/s in each of four directions, two of them to the VM that is paused. The "
        "ledger counts frames: a question of a neighbor's kernel that finds the queue full is one, too.",
    ]
    data = {"moves": [
        {"queue": one.queue, "lost": one.lost, "told": one.told, "document": one.document} for one in moves
    ]}  # fmt: skip
    return Part("queues", "12. A pause that outlasts the queue of the VM's tap", columns, rows, notes, data)
