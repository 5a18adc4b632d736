"""The hypervisors' part in an evacuation: they carry out the moves that the NVA opens, several at a time.

    report = evacuate(net, "nve1", to=["nve2", "nve3"], parallel=4)

The NVA says which moves are prepared (here it is asked again and again; the event stream says it too). For each,
the guest's hypervisors do what they do in any planned move: prepare the port, announce the pause, wait until the
redirect is in force, pause, carry over, resume, announce (see `move.py`). They are patient: while the NVA is not
there they ask again, and the guests run on where they are.

    python -m topologies.hypervisors --vms 12 --parallel 4

builds an overlay with an NVA of its own, evacuates an NVE and says what came of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from topologies.errors import ApiError, NotReady, TopologyError
from topologies.move import MoveReport, move
from topologies.ports import free_port
from topologies.rest import Rest

if TYPE_CHECKING:
    from topologies.net import OverlayNet

_LOOK = 0.05  # seconds between two looks at what is prepared
_RETRY = 0.1  # before an NVA that does not answer is asked again
_QUIET = 0.1  # longer than the pauses in what a guest is sent; it runs on meanwhile
_AT_ONCE = 64  # moves that are carried out at a time at the most; the NVA opens no more than it was told to


class Patient(Rest):
    """A client that asks again while nobody answers, for up to `patience` seconds. Every request it is used for
    may be made twice: hooks and requests with a request_id are idempotent.
    """

    def __init__(self, base: str, patience: float = 60.0) -> None:
        super().__init__(base)
        self.patience = patience

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """As `Rest.call`; 503 (it is starting, or its store is busy) is asked again too."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return super().call(method, path, body)
            except ApiError as error:
                if error.status not in (0, 503) or time.monotonic() >= deadline:
                    raise
            time.sleep(_RETRY)


@dataclass
class EvacuationReport:
    """What came of an evacuation: the NVA's document, the moves as the hypervisors saw them, and how long it
    took (seconds, until every redirect had gone). `failures`: moves that a hypervisor could not carry out.
    """

    document: dict[str, Any]
    moves: list[MoveReport] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def most_at_once(self) -> int:
        """How many guests were being carried over at the same time, at the most."""
        edges = [(one.times["prepared"], 1) for one in self.moves]
        edges += [(one.times["resumed"], -1) for one in self.moves]
        most = now = 0
        for _, by in sorted(edges):
            now += by
            most = max(most, now)
        return most


#: Is shown an evacuation's document and who carries it out.
Watcher = Callable[[dict[str, Any], "Hypervisors"], None]


class Hypervisors:
    """Carries out the prepared moves of one evacuation until it has ended.

    announce, pause, quiet: as for `move.move`; `announce` may be a list, dealt out to the moves in turn.

    Attributes:
        held: NVEs to which nothing more is carried for now, though the NVA has prepared it.
    """

    def __init__(
        self, net: OverlayNet, evacuation: int, *, announce: str | Sequence[str] = "garp-request",
        pause: float = 0.05, quiet: float = _QUIET, deadline: float = 60.0,
    ) -> None:
        self._net, self._number = net, evacuation
        self._kinds = [announce] if isinstance(announce, str) else list(announce)
        self._options: dict[str, Any] = {"pause": pause, "quiet": quiet, "deadline": deadline}
        self._rest = Patient(net.need_rest().base, deadline)
        self._taken: dict[int, Future[MoveReport]] = {}
        self._to: dict[int, str] = {}
        self.held: set[str] = set()

    def begun_to(self, nve: str) -> set[int]:
        """The moves to an NVE that have been begun, whatever has become of them."""
        return {number for number, to in self._to.items() if to == nve}

    def run(self, seconds: float, watch: Watcher | None = None) -> EvacuationReport:
        """Carry moves out until the evacuation has ended. Raises NotReady after `seconds`.

        watch: is shown the evacuation's document and these hypervisors at every look, before they begin anything new.
        """
        started = time.monotonic()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="hypervisor") as pool:
            while True:
                document: dict[str, Any] = self._rest.call("GET", f"/evacuations/{self._number}")
                if watch is not None:
                    watch(document, self)
                if not document["open"]:
                    break
                for row in document["vms"]:
                    prepared = row["move_state"] == "prepared" and row["move"] not in self._taken
                    if prepared and row["to"] not in self.held:
                        self._to[row["move"]] = row["to"]
                        self._taken[row["move"]] = pool.submit(self._carry, row["vm"], row["to"], row["move"])
                if time.monotonic() - started > seconds:
                    raise NotReady(f"evacuation {self._number}: not over within {seconds:g} s: {document['counts']}")
                time.sleep(_LOOK)
        report = EvacuationReport(document, seconds=time.monotonic() - started)
        for number, future in self._taken.items():
            error = future.exception()
            if error is None:
                report.moves.append(future.result())
            elif isinstance(error, TopologyError):
                report.failures.append(f"move {number}: {error}")
            else:
                raise error
        return report

    def _carry(self, vm: str, to: str, number: int) -> MoveReport:
        announce = self._kinds[number % len(self._kinds)]
        return move(
            self._net, self._net.vm(vm), to, announce=announce, planned=True, opened=str(number), rest=self._rest,
            kind=self._kind(number), **self._options,
        )

    def _kind(self, number: int) -> str:
        return str(self._rest.move(str(number))["kind"])


def evacuate(
    net: OverlayNet, nve: str, *, to: Sequence[str] = (), parallel: int = 4, kind: str = "hot", seconds: float = 300.0,
    watch: Watcher | None = None, request: dict[str, Any] | None = None, **options: Any,
) -> EvacuationReport:
    """Ask for an evacuation and carry it out; `options` as for Hypervisors. Raises ApiError, NotReady."""
    body = {"nve": nve, "to": list(to), "parallel": parallel, "kind": kind, **(request or {})}
    number = int(net.need_rest().call("POST", "/evacuations", body)["id"])
    return Hypervisors(net, number, **options).run(seconds, watch)


def main(arguments: list[str] | None = None) -> int:
    """The command line: an overlay, an evacuation, what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m topologies.hypervisors", description="Evacuates an NVE of an overlay made for that (root)."
    )
    parser.add_argument("--nves", type=int, default=3, help="how many NVEs (3)")
    parser.add_argument("--vms", type=int, default=12, help="VMs on the first of them (12)")
    parser.add_argument("--parallel", type=int, default=4, help="moves at a time (4)")
    parser.add_argument("--kind", choices=["hot", "cold"], default="hot", help="whether the VMs run on (hot)")
    parser.add_argument("--underlay", choices=["ipv4", "ipv6", "both"], default="ipv4")
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON")
    given = parser.parse_args(arguments)
    from topologies.controller import NVA
    from topologies.net import OverlayNet
    from topologies.specs import crowd

    class Nva(NVA):
        """On ports of its own."""

        def __init__(self, name: str, **params: Any) -> None:
            super().__init__(name, port=free_port(), rest_port=free_port(), **params)

    vms = crowd(given.vms, given.nves)
    with OverlayNet(nves=given.nves, vms=vms, underlay=given.underlay, controller=Nva) as net:
        net.wait_for_nva()
        net.register(attachments=False)

        said = [""]

        def show(document: dict[str, Any], _: Hypervisors) -> None:
            counts = ", ".join(f"{number} {state}" for state, number in document["counts"].items() if number)
            if said[-1] != counts:
                said.append(counts)
                print(f"{document['state']}: {counts}", file=sys.stderr, flush=True)

        report = evacuate(net, "nve1", parallel=given.parallel, kind=given.kind, watch=show)
    if given.json:
        moves = [one.as_dict() for one in report.moves]
        print(json.dumps({"evacuation": report.document, "moves": moves, "failures": report.failures}, indent=2))
    else:
        pauses = sorted(one.downtime * 1e3 for one in report.moves) or [0.0]
        print(
            f"{report.document['state']}: {report.document['counts']['moved']} of {report.document['total']} VMs moved "
            f"in {report.seconds:.1f} s, {report.most_at_once} at once at the most; "
            f"paused for {pauses[len(pauses) // 2]:.0f} ms (largest {pauses[-1]:.0f})"
        )
    return int(report.document["state"] != "done" or bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
