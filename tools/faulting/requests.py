"""Clients that post VMs and moves while the NVA is killed again and again: what they were told must be so, once.

A client whose request got no answer does what REST asks of it: it sends the same again, with the same request id. What
it was told, before or after, is compared in the end with what the NVA says there is.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from proof.lab import Lab

from topologies.errors import ApiError
from topologies.rest import Rest
from topologies.rundir import wait_until

_NETWORK = {"name": "vn9", "vni": 900}
_PATIENCE = 40.0
_TIMEOUT = 5.0  # of one request; an NVA that is killed closes its connections at once


@dataclass(frozen=True)
class Asked:
    """What came of it. asked: requests made, repeats included. lost, doubled, untrue: what should not be so."""

    kills: int
    asked: int
    acknowledged: int
    repeated: int
    vms: int
    moves: int
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        found = [*self.lost, *self.doubled, *self.untrue, *self.wrong]
        if not self.repeated:
            found.append("no request was ever caught by a kill: this has shown nothing")
        if not self.moves:
            found.append("no move was acknowledged")
        return [f"requests over SIGKILL: {words}" for words in found]


class Client(threading.Thread):
    """One client: registers VMs, changes them, moves them, aborts that, removes some; one request after the other."""

    def __init__(self, number: int, base: str, nves: list[str], stop: threading.Event) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.number, self._nves, self._stopping = number, nves, stop
        self._rest = Rest(base, timeout=_TIMEOUT)
        self.vms: dict[str, dict[str, Any] | None] = {}  # as last acknowledged; None: removed
        self.moves: dict[str, tuple[int, str]] = {}  # request id -> (move, VM)
        self.aborted: set[int] = set()
        self.asked = self.acknowledged = self.repeated = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """Until told to stop; the request in hand is brought to its end."""
        try:
            turn = 0
            while not self._stopping.is_set():
                turn += 1
                self._turn(turn)
        except BaseException as error:  # told by whoever joins
            self.error = error

    def _turn(self, turn: int) -> None:
        name, at = f"c{self.number}-{turn}", self._nves[turn % len(self._nves)]
        body = self._body(name, turn, at)
        self._insist("POST", "/vms", body)
        self.vms[name] = body
        if turn % 3 == 0:
            body = self._body(name, turn, at, more=True)
            self._insist("PUT", f"/vms/{name}", body)
            self.vms[name] = body
        if turn % 2:
            to = self._nves[(turn + 1) % len(self._nves)]
            number = self._insist("POST", "/moves", {"vm": name, "to": to, "request_id": name})["id"]
            self.moves[name] = (number, name)
            self._insist("POST", f"/moves/{number}/abort", {"why": "was only asked"})
            self.aborted.add(number)
        elif turn % 4 == 0:
            self._insist("DELETE", f"/vms/{name}", gone=True)
            self.vms[name] = None

    def _body(self, name: str, turn: int, nve: str, more: bool = False) -> dict[str, Any]:
        low = f"{self.number:02x}:{turn >> 8 & 255:02x}:{turn & 255:02x}"
        ipv4 = [f"10.{90 + self.number}.{turn >> 8 & 255}.{turn & 255}"]
        if more:
            ipv4.append(f"10.{190 + self.number}.{turn >> 8 & 255}.{turn & 255}")
        return {"name": name, "interfaces": [{
            "name": "eth0", "network": _NETWORK["name"], "mac": f"02:09:00:{low}", "nve": nve, "port": f"no-{name}",
            "ipv4": ipv4, "ipv6": [],
        }]}

    def _insist(self, method: str, path: str, body: Any = None, gone: bool = False) -> Any:
        """The acknowledgement; the same request again while there is none. `gone`: 404 says that it is done."""
        deadline, before = time.monotonic() + _PATIENCE, 0
        while True:
            self.asked += 1
            try:
                answer = self._rest.call(method, path, body)
            except ApiError as error:
                if gone and before and error.status == 404:
                    answer = None
                elif error.status in (0, 503) or (error.status == 409 and "in sync" in str(error)):
                    before += error.status == 0
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
                    continue
                else:
                    raise
            self.repeated += bool(before)
            self.acknowledged += 1
            return answer


def run(lab: Lab, kills: int, seed: int, clients: int = 4) -> Asked:
    """Kill the NVA so many times while clients work, then compare.

    Raises AssertionError where a client was refused what it must not be refused, TopologyError.
    """
    rng, stop = random.Random(seed), threading.Event()
    lab.post("/networks", _NETWORK)
    crowd = [Client(n, lab.nva.base, [nve.name for nve in lab.net.nves], stop) for n in range(1, clients + 1)]
    for client in crowd:
        client.start()
    try:
        for _ in range(kills):
            time.sleep(rng.uniform(0.5, 1.5))  # a random moment is what is wanted
            lab.nva.kill()
            lab.nva.start()
            # not that all is realised: clients ask for more all the time
            wait_until(lambda: _all_there(lab), _PATIENCE, "all NVEs in sync", 0.05)
        time.sleep(0.5)
    finally:
        stop.set()
        for client in crowd:
            client.join(_PATIENCE + 20)
    for client in crowd:
        if client.error is not None or client.is_alive():
            raise AssertionError(f"{client.name} has come to no end: {client.error}") from client.error
    lab.await_synced()
    return _compare(lab, crowd, kills)


def _all_there(lab: Lab) -> bool:
    return all(nve["in_sync"] for nve in lab.get("/nves")["items"])


def _all(lab: Lab, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = lab.get(f"/{what}?limit=1000" + (f"&after={after}" if after is not None else ""))
        found += page["items"]
        after = page["next"]
        if after is None:
            return found


def _compare(lab: Lab, crowd: list[Client], kills: int) -> Asked:
    vms = {vm["name"]: vm for vm in _all(lab, "vms")}
    moves = _all(lab, "moves")
    by_id = {move["id"]: move for move in moves}
    times = Counter(move["request_id"] for move in moves if move["request_id"])
    lost, doubled, untrue = [], [], []
    expected = {name for client in crowd for name, body in client.vms.items() if body is not None}
    strange = {name for name in vms if name.startswith("c") and name not in expected}
    untrue += [f"{name} is there, but was removed or never asked for" for name in sorted(strange)]
    doubled += [f"request {name} was done {count} times" for name, count in times.items() if count > 1]
    doubled += [f"move {move['id']} of {move['vm']} was asked for by nobody" for move in moves
                if not move["request_id"] and move["vm"].startswith("c")]
    for client in crowd:
        for name, body in client.vms.items():
            if body is None:
                continue
            if name not in vms:
                lost.append(f"{name} was acknowledged and is not there")
                continue
            wanted, found = body["interfaces"][0], vms[name]["interfaces"][0]
            if any(found[key] != wanted[key] for key in ("mac", "ipv4", "nve", "port")) or found["epoch"] != 1:
                untrue.append(f"{name} is {found}, not {wanted}")
        for request, (number, vm) in client.moves.items():
            found = by_id.get(number)
            if found is None or (found["request_id"], found["vm"]) != (request, vm):
                lost.append(f"move {number} ({request}) was acknowledged and is {found and found['request_id']}")
            elif number in client.aborted and found["state"] != "aborted":
                lost.append(f"the abort of move {number} was acknowledged, and it is {found['state']}")
            elif lab.post("/moves", {"vm": vm, "to": found["destination"], "request_id": request})["id"] != number:
                doubled.append(f"request {request} again made another move")
    return Asked(
        kills, sum(c.asked for c in crowd), sum(c.acknowledged for c in crowd), sum(c.repeated for c in crowd),
        len(expected), sum(len(c.moves) for c in crowd), lost, doubled, untrue, lab.verify(),
    )
