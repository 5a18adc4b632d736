"""OpenFlow over TLS in a real ryu-manager: many switches, and those that are not who they say."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nva_lab import DEADLINE, CLIENT, Authority, Nva, files, nva, overlay, pki  # isort: skip

from ryu_vmm.emulation.client import EmulationError
from ryu_vmm.wire import base, openflow

__all__ = ["nva", "pki"]  # fixtures

MANY = 40


def switch(pki: Authority, number: int, certificate: str | None = "", **more: object) -> dict[str, Any]:
    """Switch of NVE ``number``; ``certificate``: the name in it ("": the right one, None: it has none)."""
    name = overlay.nve_name(number) if certificate == "" else certificate
    return {**overlay.switch(number, []), "tls": files(pki, name), **more}


def test_many_switches_are_the_nves_of_their_certificates(nva: Callable[..., Nva], pki: Authority) -> None:
    lab = nva(pki)
    guests = [overlay.Guest(n, n) for n in range(1, MANY + 1)]
    lab.register(MANY, guests, distribution="pull")  # where questions are the NVA's to answer
    # Connections that never begin their handshake keep nobody waiting
    silent = [socket.create_connection(("127.0.0.1", lab.ofp)) for _ in range(10)]
    emulation = lab.emulation()
    emulation.add([{**switch(pki, n), "ports": ["vxlan", f"tap{n}"]} for n in range(1, MANY + 1)], timeout=DEADLINE)
    lab.synchronised(*range(1, MANY + 1))
    assert all(lab.get(f"/nves/nve{n}")["tls"] for n in range(1, MANY + 1))
    assert lab.event("nve.connected", nve="nve7")["fields"]["certificate"] == ["nve7"]
    # A question about an address is answered, by all of them
    frames = {
        str(n): [(f"tap{n}", guests[n - 1].asks_for(guests[n % MANY]).hex())] for n in range(1, MANY + 1)
    }
    loaded = emulation.call("load", frames=frames, window=2, seconds=0.5, warm_up=0.1)
    assert loaded["lost"] == 0
    assert min(loaded["per_switch"]) > 0
    for sock in silent:
        sock.close()
    assert lab.manager.end() == 0
    assert "Traceback" not in lab.manager.text


def test_a_certificate_of_another_nve_is_refused_and_reported(nva: Callable[..., Nva], pki: Authority) -> None:
    lab = nva(pki)
    lab.register(2)
    lab.emulation().add([switch(pki, 2)])
    lab.synchronised(2)
    impostor = lab.emulation()
    impostor.call("add", switches=[switch(pki, 1), switch(pki, 3, "nve1", faults={"claims": 2})])
    lab.synchronised(1)
    fields = lab.event("nve.impostor", nve="nve2", certificate_of="nve1")["fields"]
    assert fields["certificate"] == ["nve1"]
    assert fields["dpid"] == f"{2:016x}"
    # It tries again and again: counted every time, told once
    lab.wait(lambda: impostor.call("count")["connections_lost"] >= 4, "further attempts")
    assert len(lab.events("nve.impostor")) == 1
    assert lab.get("/nves/nve2")["connected"]
    assert not lab.events("nve.disconnected")
    assert lab.manager.text.count("nve.impostor ") == 1


def test_without_a_certificate_nobody_gets_in(nva: Callable[..., Nva], pki: Authority, tmp_path: Path) -> None:
    lab = nva(pki)
    lab.register(3)
    stranger = Authority(tmp_path / "theirs")
    stranger.issue("nve-nve2", "nve2", CLIENT)
    theirs = {"key": str(stranger.folder / "nve-nve2.key"), "certificate": str(stranger.folder / "nve-nve2.crt")}
    outside = lab.emulation()
    outside.call("add", switches=[
        switch(pki, 1, None),
        {**overlay.switch(2, []), "tls": {**theirs, "ca": str(pki.folder / "ca.crt")}},
        overlay.switch(3, []),  # no TLS at all
    ])  # fmt: skip
    with pytest.raises(EmulationError, match="switches connected"):
        outside.call("ready", timeout=2.0)
    lab.wait(lambda: outside.call("count")["connections_lost"] >= 6, "further attempts")
    assert not any(lab.get(f"/nves/nve{n}")["connected"] for n in (1, 2, 3))
    assert not lab.events("nve.connected")
    lab.emulation().add([switch(pki, 4), switch(pki, 5, "any")])  # unregistered ones wait
    assert lab.event("nve.unregistered", certificate=["any"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # that is what they are
def test_old_versions_of_tls_are_refused(nva: Callable[..., Nva], pki: Authority) -> None:
    lab = nva(pki)

    def version(newest: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cafile=str(pki.folder / "ca.crt"))
        context.check_hostname = False
        of_switch = files(pki, "nve1")
        context.load_cert_chain(of_switch["certificate"], of_switch["key"])
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = newest
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        with context.wrap_socket(socket.create_connection(("127.0.0.1", lab.ofp), timeout=DEADLINE)) as sock:
            sock.sendall(openflow.encode_hello(1))
            assert sock.recv(8)[1] == base.HELLO
            return sock.version()

    with pytest.raises(OSError):
        version(ssl.TLSVersion.TLSv1_1)
    assert version(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


def test_a_name_other_than_the_nves_own_may_be_registered(nva: Callable[..., Nva], pki: Authority) -> None:
    lab = nva(pki)
    body = overlay.nve_body(1) | {"certificate": "host-17.example.org"}
    lab.post("/nves", body)
    right, wrong = lab.emulation(), lab.emulation()
    wrong.call("add", switches=[switch(pki, 1)])
    lab.event("nve.impostor", nve="nve1", certificate=["nve1"])
    wrong.close()
    right.add([switch(pki, 1, "host-17.example.org")])
    lab.synchronised(1)
    assert lab.get("/nves/nve1")["certificate"] == "host-17.example.org"
    # Registered with another name it is another one, from that moment on
    lab.put("/nves/nve1", body | {"certificate": "host-18.example.org"})
    lab.event("nve.disconnected", nve="nve1")
    lab.event("nve.impostor", nve="nve1", certificate=["host-17.example.org"])
    lab.put("/nves/nve1", body)
    lab.synchronised(1)


def test_one_that_waits_for_its_registration_is_looked_at_then(nva: Callable[..., Nva], pki: Authority) -> None:
    lab = nva(pki)
    emulation = lab.emulation()
    emulation.add([switch(pki, 1), switch(pki, 2, "nve1")])
    for n in (1, 2):
        lab.event("nve.unregistered", dpid=f"{n:016x}")
    lab.register(2)
    lab.synchronised(1)
    lab.event("nve.impostor", nve="nve2", certificate_of="nve1")
    lab.wait(lambda: emulation.call("count")["connections_lost"] >= 1, "its end")
    assert not lab.get("/nves/nve2")["connected"]


def test_without_tls_an_nve_with_a_certificate_is_never_there(nva: Callable[..., Nva]) -> None:
    lab = nva()
    lab.post("/nves", overlay.nve_body(1) | {"certificate": "nve1"})
    lab.post("/nves", overlay.nve_body(2))
    lab.emulation().call("add", switches=[overlay.switch(1, []), overlay.switch(2, [])])
    lab.synchronised(2)
    lab.event("nve.impostor", nve="nve1", certificate=[], certificate_of=None)
    assert not lab.get("/nves/nve1")["connected"]
    assert not lab.get("/nves/nve2")["tls"]


def test_a_crowd_of_silent_ones_makes_room(nva: Callable[..., Nva], pki: Authority) -> None:
    """More than may be in their handshake at once never say a word; a switch gets in all the same."""
    lab = nva(pki)
    lab.register(1)
    crowd = [socket.create_connection(("127.0.0.1", lab.ofp), timeout=DEADLINE) for _ in range(300)]
    began = time.monotonic()
    lab.emulation().add([switch(pki, 1)], timeout=DEADLINE)
    lab.synchronised(1)
    assert time.monotonic() - began < 20
    lab.manager.wait_for("and others wait for its place")
    for sock in crowd:
        sock.close()


@pytest.mark.parametrize("missing", ["ca_certs", "ctl_privkey", "ctl_cert"])
def test_half_of_the_options_is_refused(
    ryu_manager: Callable[..., Any], pki: Authority, tmp_path: Path, missing: str
) -> None:
    all_of_them = {"ctl_privkey": "controller.key", "ctl_cert": "controller.crt", "ca_certs": "ca.crt"}
    given = "".join(f"{name} = {pki.folder / file}\n" for name, file in all_of_them.items() if name != missing)
    config = tmp_path / "vmm.conf"
    config.write_text(f"[DEFAULT]\n{given}[vmm]\nstore = :memory:\n")
    manager = ryu_manager("--config-file", str(config), "ryu_vmm")
    assert manager.process.wait(DEADLINE) == 1
    assert f"needs ctl_privkey, ctl_cert, ca_certs: {missing} missing" in manager.text
    assert "Traceback" not in manager.text


@pytest.mark.parametrize("secured", [False, True])
def test_openflow_without_tls_beyond_this_machine_is_warned_of(
    ryu_manager: Callable[..., Any], pki: Authority, tmp_path: Path, secured: bool
) -> None:
    given = {"ctl_privkey": "controller.key", "ctl_cert": "controller.crt", "ca_certs": "ca.crt"} if secured else {}
    lines = "".join(f"{name} = {pki.folder / file}\n" for name, file in given.items())
    config = tmp_path / "vmm.conf"
    config.write_text(f"[DEFAULT]\n{lines}[vmm]\nstore = :memory:\n")
    # an address that is not loopback, and nobody's: it is not listened on in the end
    manager = ryu_manager("--config-file", str(config), "--ofp-listen-host", "192.0.2.1", "ryu_vmm")
    assert manager.process.wait(DEADLINE) == 1
    assert ("any switch may claim to be any NVE" in manager.text) is not secured
