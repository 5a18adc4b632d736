"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TEXT = """\
Shows a virtual machine moving between Open vSwitch edges (NVEs) under traffic without losing a packet: three NVEs with
Open vSwitch daemons of their own in network namespaces, VXLAN between them, three VMs, and the Network Virtualization
Authority as a user starts it, `ryu-manager ryu_vmm`. vm1 moves from nve1 to nve2 and back; the receivers' counts, the
switches' ledger and a picture of all arrivals say what happened. Then everything is ended and removed.

With --layer3 another story, in four chapters: a packet by VXLAN, without Ethernet and by ILA, byte for byte; a task
that keeps its addresses; one that keeps its TCP connections; two that get other addresses, and what clients notice."""
_EXITS = """\
exit code: 0 if nothing was lost or doubled and every switch is in sync without a tunnel-to-tunnel flow, and with
--layer3 only if all that was claimed held; 1 if not or if something went wrong, 2 wrong usage,
128 + N ended by signal N."""


@dataclass(frozen=True)
class Options:
    """What the user asked for. `pause` in seconds, `rate` in datagrams per second."""

    underlay: str = "ipv4"
    pause: float = 0.05
    rate: float = 2000.0
    output: Path = Path("demo-output")
    json: bool = False
    keep: bool = False
    move: tuple[str, str] | None = None
    stop: bool = False
    layer3: bool = False
    pid: int | None = None


def _number(low: float, high: float, what: str) -> object:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {low:g} to {high:g}")
        return value

    return convert


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; ends the program with words and code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="tools/demo", description=_TEXT, epilog=_EXITS, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--layer3", action="store_true", help="another story: routed networks, and what becomes of addresses and names")
    add("--underlay", choices=("ipv4", "ipv6", "both"), help="what carries packets between NVEs (ipv4); with "
        "--layer3 ipv6, or both: IPv4 for tunnels, IPv6 for ILA (both)")
    add("--pause", type=_number(0, 10_000, "milliseconds"), default=50.0, metavar="MS",  # type: ignore[arg-type]
        help="how long the VM is paused, at least (50)")
    add("--rate", type=_number(2, 20_000, "datagrams per second"), default=2000.0, metavar="N",  # type: ignore[arg-type]
        help="datagrams per second in each direction with each of the two others, half IPv4, half IPv6 (2000)")
    add("--output", type=Path, default=Path("demo-output"), metavar="DIR", help="where files go (./demo-output)")
    add("--json", action="store_true", help="print one JSON document instead of words")
    add("--keep", action="store_true", help="leave it all running, and say how to drive it and how to end it")
    other = parser.add_argument_group("a demonstration that is kept running")
    act = other.add_mutually_exclusive_group()
    act.add_argument("--move", nargs=2, metavar=("VM", "NVE"), help="move a VM as a hypervisor does, e.g. vm1 nve3")
    act.add_argument("--stop", action="store_true", help="end it and remove everything")
    other.add_argument("--pid", type=int, metavar="PID", help="which one, if there are several")
    got = parser.parse_args(arguments)
    if got.pid is not None and not (got.move or got.stop):
        parser.error("--pid goes with --move or --stop")
    if got.keep and (got.move or got.stop):
        parser.error("--keep starts a demonstration; --move and --stop are for one that runs")
    if got.layer3 and (got.keep or got.move or got.stop):
        parser.error("--layer3 is a story that ends by itself: it does not go with --keep, --move or --stop")
    if got.layer3 and got.underlay == "ipv4":
        parser.error("--layer3 needs IPv6 in the underlay, for ILA: --underlay ipv6 or both")
    if got.underlay == "both" and not got.layer3:
        parser.error("--underlay both goes with --layer3")
    underlay = got.underlay or ("both" if got.layer3 else "ipv4")
    return Options(
        underlay, got.pause / 1e3, got.rate, got.output, got.json, got.keep, tuple(got.move) if got.move else None,
        got.stop, got.layer3, got.pid,
    )
