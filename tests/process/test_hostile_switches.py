"""Switches that are dead, slow, wrong or noisy, around a real NVA: none of them harms the others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from nva_lab import Nva, nva, overlay

from ryu_vmm.wire import base as of

__all__ = ["nva"]  # a fixture

#: VMs 1 to 3 are on NVEs 1 to 3; VM 4 is on NVE 2 and moves. NVE 1 is the one that does wrong.
GUESTS = [overlay.Guest(1, 1), overlay.Guest(2, 2), overlay.Guest(3, 3), overlay.Guest(4, 2)]
QUICK = {
    "echo_interval": 0.3, "echo_misses": 9, "resync_pause": 0.1, "handshake_within": 2, "steer_deadline": 1,
    "quiet_time": 1, "poll_interval": 0.1,
}  # fmt: skip
KINDS = (
    of.FLOW_MOD, of.BARRIER_REQUEST, of.METER_MOD, of.PACKET_OUT, of.MULTIPART_REQUEST, of.ECHO_REQUEST, of.SET_CONFIG,
)  # fmt: skip


def switches(*numbers: int, **faults: object) -> list[dict[str, object]]:
    return [{**overlay.switch(n, GUESTS, eager=True), "faults": faults} for n in numbers]


class Scene:
    """An NVA, NVE 1 with its faults in a process of its own, and NVEs 2 and 3."""

    def __init__(self, lab: Nva, together: bool = False, **faults: object) -> None:
        self.lab = lab
        lab.register(3, GUESTS)
        self.others = lab.emulation()
        self.others.call("add", switches=switches(2, 3))
        self.hostile = self.others if together else lab.emulation()
        self.hostile.call("add", switches=switches(1, **faults))
        self.at = 2

    def move(self) -> int:
        """VM 4 moves between NVEs 2 and 3, until its new location is in force wherever it can be; the move's number."""
        lab, guest = self.lab, GUESTS[3]
        source, destination = self.at, 5 - self.at
        self.others.call("port", dpid=destination, name=guest.port, state="up")
        number = lab.post("/moves", {"vm": guest.name, "to": overlay.nve_name(destination)})["id"]
        self.reach(number, "prepared")
        lab.post(f"/moves/{number}/redirect")
        lab.wait(lambda: lab.get(f"/moves/{number}")["redirect_in_force"], "the redirect")
        self.others.call("port", dpid=source, name=guest.port, state="gone")
        self.others.call("inject", dpid=destination, port=guest.port, frame=guest.announcement().hex())
        document = self.reach(number, "draining", "settled")
        assert document["legs"][0]["destination"]["nve"] == overlay.nve_name(destination)
        self.at = destination
        return int(number)

    def reach(self, number: int, *states: str) -> dict[str, object]:
        def look() -> dict[str, object] | None:
            found: dict[str, object] = self.lab.get(f"/moves/{number}")
            assert found["state"] in states or found["state"] not in ("failed", "aborted"), found
            return found if found["state"] in states else None

        return self.lab.wait(look, f"move {number} to be {states}")

    def well(self) -> None:
        """All three NVEs are in sync, and their flows are what they should be."""
        self.lab.synchronised(1, 2, 3)
        for n in (1, 2, 3):
            assert self.lab.post(f"/nves/nve{n}/verify")["in_sync"]
        assert "Traceback" not in self.lab.manager.text


def test_a_half_open_connection_is_noticed_in_time(nva: Callable[..., Nva]) -> None:
    """Section 'echo' of the options: within (misses + 2) intervals; moves of others do not wait for that."""
    options: dict[str, Any] = {**QUICK, "steer_deadline": 5}
    scene = Scene(nva(**options))
    scene.well()
    scene.hostile.call("faults", dpid=1, deaf=True, mute=True)
    began = time.monotonic()
    scene.lab.event("nve.disconnected", nve="nve1")
    within = (options["echo_misses"] + 2) * options["echo_interval"]
    assert time.monotonic() - began < within + 10  # 10: a loaded machine
    number = scene.move()
    assert scene.lab.get(f"/moves/{number}")["unconfirmed"] == ["nve1"]
    scene.hostile.call("faults", dpid=1, deaf=False, mute=False)  # it finds its connection closed and comes back
    scene.reach(number, "settled")
    scene.well()
    assert not [e for e in scene.lab.events("nve.disconnected") if e["fields"]["nve"] != "nve1"]


def test_two_with_one_datapath_id(nva: Callable[..., Nva]) -> None:
    """The one that is there stays while it lives, and is replaced as soon as it does not."""
    lab = nva(takeover_within=2.0, echo_interval=60)
    lab.register(3, GUESTS)
    first, second = lab.emulation(), lab.emulation()
    first.add(switches(1))
    lab.synchronised(1)
    second.call("add", switches=switches(1))
    fields = lab.event("nve.duplicate", nve="nve1", dpid=f"{1:016x}")["fields"]
    assert fields["peer"].startswith("127.0.0.1:")
    lab.wait(lambda: second.call("count")["connections_lost"] >= 3, "further attempts")
    assert len(lab.events("nve.duplicate")) == 1
    assert not lab.events("nve.disconnected")
    first.call("faults", dpid=1, deaf=True, mute=True)
    lab.event("nve.disconnected", nve="nve1")
    lab.synchronised(1)
    assert len(lab.events("nve.connected")) == 2
    assert lab.post("/nves/nve1/verify")["in_sync"]


@pytest.mark.parametrize(
    "faults",
    [
        {"reply_delay": 0.4},
        {"reorder_barriers": 2},
        {"wrong_xid": 6},
        {"cut_short": 6},
        {"too_long": 6},
        {"refuse_nth": {str(kind): 1 for kind in KINDS}},
        {"refuse_nth": {str(of.MULTIPART_REQUEST): 4, str(of.BARRIER_REQUEST): 2, str(of.FLOW_MOD): 7}},
        {"ignore": {str(of.MULTIPART_REQUEST): 1, str(of.BARRIER_REQUEST): 1}},
    ],
    ids=lambda faults: "-".join(f"{name}{value}" for name, value in faults.items())[:40],
)
def test_wrong_answers_are_survived(nva: Callable[..., Nva], faults: dict[str, object]) -> None:
    """Whatever it answers: the others move VMs meanwhile, and in the end it is in sync as well."""
    later = {name: faults[name] for name in ("reorder_barriers",) if name in faults}
    at_once = {name: value for name, value in faults.items() if name not in later}
    scene = Scene(nva(**QUICK, answer_within=1.5), together=True, **at_once)
    scene.lab.synchronised(2, 3)
    if later:  # replies that wait for those after them; the first of all would wait for ever
        scene.well()
        scene.hostile.call("faults", dpid=1, **later)
        for n in range(10, 14):
            scene.lab.post("/vms", overlay.Guest(n, 1).body())
        scene.lab.synchronised(1)
        scene.hostile.call("faults", dpid=1, reorder_barriers=0)
    scene.hostile.call("faults", dpid=1, reply_delay=faults.get("reply_delay", 0.0))
    scene.well()
    scene.reach(scene.move(), "settled")
    scene.well()


def test_one_that_never_reads_is_let_go(nva: Callable[..., Nva]) -> None:
    """What waits for it is bounded by time and by bytes; it says enough not to be called silent."""
    scene = Scene(nva(echo_interval=0.3, echo_misses=1000, stuck_after=1.0, send_cap=1 << 20))
    scene.well()
    # It talks all the time, so it lives, and never takes an answer
    asks = GUESTS[0].asks_for(overlay.Guest(4000, 1)).hex()  # whom no flow of its own knows
    scene.hostile.call("flood", dpid=1, frames=[(GUESTS[0].port, asks)], rate=20_000)
    scene.hostile.call("faults", dpid=1, deaf=True)
    scene.lab.event("nve.disconnected", nve="nve1")
    assert scene.lab.manager.text.count("has taken nothing of what waits") == 1
    number = scene.move()
    scene.hostile.call("faults", dpid=1, deaf=False)
    scene.reach(number, "settled")
    scene.well()


def test_one_that_floods_is_in_nobodys_way(nva: Callable[..., Nva]) -> None:
    """As many packets as its connection takes, from one port: counted, told, and the neighbors are served."""
    lab = nva(port_backlog=1 << 14)
    neighbor = overlay.Guest(5, 1)
    scene = Scene(lab, together=True)
    lab.post("/vms", neighbor.body())
    scene.others.call("port", dpid=1, name=neighbor.port, state="up")
    scene.well()
    # A question that is passed on to everybody is what costs the NVA most
    unknown = GUESTS[0].asks_for(overlay.Guest(4000, 1)).hex()
    scene.hostile.call("flood", dpid=1, frames=[(GUESTS[0].port, unknown)])
    event = lab.event("packets.shed", nve="nve1", port=GUESTS[0].port)
    assert event["fields"]["interface"] == f"{GUESTS[0].name}/eth0"
    for _ in range(2):
        scene.reach(scene.move(), "settled")
    before = scene.hostile.call("count")["delivered"]
    scene.hostile.call("inject", dpid=1, port=neighbor.port, frame=neighbor.asks_for(GUESTS[2]).hex())
    lab.wait(lambda: scene.hostile.call("count")["delivered"] > before, "the neighbor's answer")
    sent = scene.hostile.call("flood", dpid=1)["sent"]
    figures = lab.http.get(f"http://127.0.0.1:{lab.manager.rest}/metrics").text
    shed = {line.split("{")[1] for line in figures.splitlines() if line.startswith("vmm_packet_ins_shed_total{")}
    assert {line.split("}")[0] for line in shed} == {f'nve="nve1",port="{GUESTS[0].port}"'}, json.dumps(sorted(shed))
    assert 0 < float(next(iter(shed)).split()[-1]) <= sent
    assert len(lab.events("packets.shed")) < 10
    assert not lab.events("nve.disconnected")
    scene.well()
