"""The orchestrator's side of a planned move, against a stand-in for the NVA; and switches that crash."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from handmade import Hand

from topologies import OverlayNet
from topologies.errors import ApiError, NotReady, TopologyError
from topologies.rest import Rest


class StandIn:
    """Answers as the NVA would; `states` are given out one for each look at the move, the last again and again."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bodies: dict[str, Any] = {}
        self.refuse: dict[str, tuple[int, dict[str, Any]]] = {}
        self.states = ["preparing", "prepared"]
        self.in_force_after = 2  # looks at the move after the redirect hook
        self._looks: int | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                call = f"{self.command} {self.path}"
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                status, answer = outer.answer(call, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _do  # noqa: N815 (the server's names)

            def log_message(self, *_args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, call: str, body: Any) -> tuple[int, Any]:
        if not (call.startswith("GET") and self.calls and self.calls[-1] == call):
            self.calls.append(call)
        if body is not None:
            self.bodies[call] = body
        if call in self.refuse:
            return self.refuse[call]
        if call == "POST /v1/moves":
            return 202, {"id": 7, "state": "preparing", "redirect_in_force": False}
        if call == "POST /v1/moves/7/redirect":
            self._looks = 0
        if call == "POST /v1/moves/7/activate":
            self.states = ["steering", "settled"]
        if call == "GET /v1/moves/7":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            if self._looks is not None:
                self._looks += 1
            in_force = self._looks is not None and self._looks >= self.in_force_after
            return 200, {"id": 7, "state": state, "redirect_in_force": in_force, "reason": "as told"}
        if call == "POST /v1/vms":
            return 201, {"move": None, "interfaces": []}
        return 200, {}


@pytest.fixture
def nva() -> Iterator[StandIn]:
    stand_in = StandIn()
    thread = threading.Thread(target=stand_in.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield stand_in
    stand_in.server.shutdown()
    thread.join()
    stand_in.server.server_close()


@pytest.fixture
def net(nva: StandIn) -> Iterator[OverlayNet]:
    with OverlayNet(nves=2, vms=2, controller=None, rest=nva.base) as built:
        yield built


def plugged(net: OverlayNet, vm: str) -> list[str]:
    port = net.vm(vm).spec.port
    return [nve.name for nve in net.nves if port in nve.vsctl("list-ports", "br-int").split()]


def test_everything_is_registered(net: OverlayNet, nva: StandIn) -> None:
    net.register()
    assert nva.calls == ["POST /v1/nves"] * 2 + ["POST /v1/networks"] + ["POST /v1/vms"] * 2
    assert nva.bodies["POST /v1/nves"] == {
        "name": "nve2", "dpid": "0000000000000002", "ipv4": "192.168.100.2", "ipv6": None, "tunnel_port": None,
    }
    assert nva.bodies["POST /v1/networks"] == {"name": "vn1", "vni": 100}
    assert nva.bodies["POST /v1/vms"]["interfaces"] == [{
        "name": "eth0", "network": "vn1", "mac": "02:00:00:00:00:02", "ipv4": ["10.0.0.2"], "ipv6": ["2001:db8::2"],
        "nve": "nve2", "port": "tap-vm2",
        "attachments": [{"nve": "nve1", "port": "tap-vm2"}, {"nve": "nve2", "port": "tap-vm2"}],
    }]


@pytest.mark.parametrize("tap_first", [False, True])
def test_the_order_of_a_planned_move(net: OverlayNet, nva: StandIn, tap_first: bool) -> None:
    report = net.vm("vm1").move("nve2", tap_first=tap_first, request_id="r-1")
    assert nva.calls == ["POST /v1/moves", "GET /v1/moves/7", "POST /v1/moves/7/redirect", "GET /v1/moves/7"]
    assert nva.bodies["POST /v1/moves"] == {
        "vm": "vm1", "to": "nve2", "kind": "hot", "ports": {"eth0": "tap-vm1"}, "request_id": "r-1",
    }
    order = list(report.times)
    assert order == sorted(order, key=report.times.__getitem__)
    assert [step for step in order if step != "port_ready"] == [
        "requested", "prepared", "asked", "notified", "redirect_in_force", "quiet", "paused", "port_gone",
        "resumed", "announced",
    ]
    assert order.index("port_ready") == (0 if tap_first else 2)
    assert (report.move, report.downtime >= 0.05) == ("7", True)
    assert plugged(net, "vm1") == ["nve2"]


def test_without_an_announcement_the_orchestrator_activates(net: OverlayNet, nva: StandIn) -> None:
    report = net.vm("vm1").move("nve2", announce="none", settle=5)
    assert nva.calls[-2:] == ["POST /v1/moves/7/activate", "GET /v1/moves/7"]
    assert report.times["resumed"] < report.times["activated"] < report.times["settled"]


@pytest.mark.parametrize("tap_first", [False, True])
def test_a_refused_move_changes_nothing(net: OverlayNet, nva: StandIn, tap_first: bool) -> None:
    problem = {"title": "Conflict", "detail": "move 3 is already open for vm1", "status": 409}
    nva.refuse["POST /v1/moves"] = (409, problem)
    with pytest.raises(ApiError, match="409: move 3 is already open for vm1") as caught:
        net.vm("vm1").move("nve2", tap_first=tap_first)
    assert (caught.value.status, caught.value.problem) == (409, problem)
    assert plugged(net, "vm1") == ["nve1"]
    assert net.vm("vm1").nve is net.nve("nve1")
    assert nva.calls == ["POST /v1/moves"]  # nothing to abort


def test_a_move_that_fails_or_hangs_is_aborted_and_the_vm_stays(net: OverlayNet, nva: StandIn) -> None:
    Hand(net)
    nva.states = ["preparing", "failed"]
    with pytest.raises(ApiError, match="move 7 is failed, not prepared: as told"):
        net.vm("vm1").move("nve2")
    nva.states, nva.in_force_after = ["prepared"], 10**9
    with pytest.raises(NotReady, match="not redirecting within"):
        net.vm("vm1").move("nve2", deadline=0.3)
    assert nva.calls.count("POST /v1/moves/7/abort") == 2
    assert plugged(net, "vm1") == ["nve1"]
    assert net.pingAll() == 0.0


def test_no_nva_at_all_is_one_clear_error() -> None:
    with pytest.raises(ApiError, match=r"GET http://127.0.0.1:1/v1/health: no answer") as caught:
        Rest("http://127.0.0.1:1").call("GET", "/health")
    assert caught.value.status == 0
    with pytest.raises(ApiError, match="is not an http:// address"):
        Rest("ftp://127.0.0.1")


def test_a_crashed_switch_comes_back_without_flows(net: OverlayNet) -> None:
    hand = Hand(net)
    nve = net.nve("nve1")
    assert net.pingAll() == 0.0
    nve.crash()
    with pytest.raises(TopologyError):
        nve.ofctl("dump-flows")
    assert net.pingAll() == 100.0
    nve.restart()
    assert nve.flows() == []
    assert nve.ofport("tap-vm1") > 0
    hand.program(nve)
    hand.warm_up()
    assert net.pingAll() == 0.0
    nve.restart()  # without a crash
    assert nve.flows() == []
