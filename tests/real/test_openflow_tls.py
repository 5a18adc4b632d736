"""Open vSwitch over TLS with certificates of tools/ca: each is the NVE of its certificate, and no other."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from proof.authority import Authority

from topologies import OverlayNet
from topologies.nve import NVE
from topologies.rundir import wait_until

ROOT = Path(__file__).parents[2]
NVES = ("nve1", "nve2", "nve3")


def ca(folder: Path, *names: str) -> Path:
    given = [word for name in names for word in ("--nve", name)]
    subprocess.run([str(ROOT / "tools" / "ca"), str(folder), "--quiet", *given], check=True, timeout=120)
    return folder


def secure(nve: NVE, folder: Path, name: str) -> None:
    nve.secure(*(str(folder / file) for file in (f"nve-{name}.key", f"nve-{name}.crt", "ca.crt")))


class Overlay:
    """Three NVEs over TLS, a VM on each, registered and in sync."""

    def __init__(self, nva: Authority, net: OverlayNet, pki: Path) -> None:
        self.nva, self.net, self.pki = nva, net, pki
        for name in NVES:
            secure(net.nve(name), pki, name)
        net.register()
        self.in_sync(*NVES)

    def in_sync(self, *names: str) -> None:
        def done() -> bool:
            found = {nve["name"]: nve for nve in self.nva.rest.call("GET", "/nves")["items"]}
            return all(
                found[n]["in_sync"] and found[n]["generation"]["programmed"] == found[n]["generation"]["realised"]
                for n in names
            )

        wait_until(done, 30, f"{names} in sync", 0.1)

    def connected(self, name: str) -> bool:
        return bool(self.nva.rest.call("GET", f"/nves/{name}")["connected"])


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Overlay]:
    pki = ca(tmp_path / "pki", *NVES)
    with (
        Authority(tmp_path, tls=pki) as nva,
        OverlayNet(nves=3, vms=3, controller=nva.address, rest=nva.base) as net,
    ):
        yield Overlay(nva, net, pki)


def test_switches_are_the_nves_of_their_certificates(overlay: Overlay, tmp_path: Path) -> None:
    net, nva = overlay.net, overlay.nva
    assert net.pingAll() == 0
    assert all(nva.rest.call("GET", f"/nves/{name}")["tls"] for name in NVES)

    report = net.vm("vm1").move("nve2", settle=30)  # a move works as it does without TLS
    assert nva.rest.call("GET", f"/moves/{report.move}")["ledger"]["lost"]["packets"] == 0
    assert net.pingAll() == 0

    # nve3 comes back with the certificate of nve1: refused, reported, and forwarding as before meanwhile
    after = nva.last_event()
    secure(net.nve("nve3"), overlay.pki, "nve1")
    event = nva.await_event("nve.impostor", after, 20, nve="nve3", certificate_of="nve1")
    assert event["fields"]["certificate"] == ["nve1"]
    assert not overlay.connected("nve3")
    assert overlay.connected("nve1")
    assert net.pingAll() == 0

    # nor does the certificate of somebody else's authority open the door
    theirs = ca(tmp_path / "theirs", "nve3")
    after = nva.last_event()
    net.nve("nve3").secure(str(theirs / "nve-nve3.key"), str(theirs / "nve-nve3.crt"), str(overlay.pki / "ca.crt"))
    wait_until(lambda: "alert" in (nva.log.read_text()) or "TLS with" in nva.log.read_text(), 20, "a failed handshake")
    assert not overlay.connected("nve3")

    secure(net.nve("nve3"), overlay.pki, "nve3")
    overlay.in_sync("nve3")

    # a switch with a certificate of its own that claims to be another datapath
    after = nva.last_event()
    one = net.nve("nve1").dpid
    net.nve("nve3").vsctl("set", "Bridge", "br-int", f"other-config:datapath-id={one}")
    event = nva.await_event("nve.impostor", after, 20, nve="nve1", certificate_of="nve3")
    assert overlay.connected("nve1")
    assert not nva.events(after, "nve.disconnected") or all(
        found["fields"]["nve"] == "nve3" for found in nva.events(after, "nve.disconnected")
    )
    net.nve("nve3").vsctl("set", "Bridge", "br-int", f"other-config:datapath-id={net.nve('nve3').dpid}")
    overlay.in_sync(*NVES)
    assert net.pingAll() == 0
    for name in NVES:
        assert nva.rest.call("POST", f"/nves/{name}/verify")["in_sync"]
