"""Who may use REST, on a real ryu-manager over TLS: tokens, client certificates, forgeries, and what is left behind."""

from __future__ import annotations

import json
import re
import signal
import ssl
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rest_access import DEADLINE, Place, vmm

NVE = {"name": "nve1", "dpid": "1", "ipv4": "192.168.100.1"}


@pytest.fixture
def place(ryu_manager: Callable[..., Any], tmp_path: Path) -> Place:
    """An admin, a tenant, a hypervisor known by its certificate, a reader; nothing runs yet."""
    made = Place(tmp_path, ryu_manager)
    made.admit("ops", "--role", "admin")
    made.admit("acme", "--role", "tenant", "--port", "*/acme-*")
    made.admit("host1", "--role", "hypervisor", "--nve", "nve1", "--certificate", "DNS:host1.example.org", "--no-token")
    made.admit("eyes", "--role", "reader")
    return made


@pytest.fixture
def nva(place: Place) -> Place:
    """The same with the NVA running; certificates are optional."""
    manager = place.start()
    manager.connect(manager.rest).close()
    return place


# --- who comes in ---------------------------------------------------------------------------------------------
def test_tokens_over_tls(nva: Place) -> None:
    with nva.client(nva.tokens["ops"]) as ops, nva.client() as nobody, nva.client(nva.tokens["eyes"]) as eyes:
        assert ops.post("/v1/nves", json=NVE).status_code == 201
        assert nobody.get("/v1/nves").status_code == 401
        assert nobody.get("/v1/ready").json() == {"ready": True, "why": []}
        assert nobody.get("/v1/health").json()["vms"] is None
        assert eyes.get("/v1/nves").json()["items"][0]["name"] == "nve1"
        assert eyes.post("/v1/nves", json=NVE).status_code == 403
        assert eyes.get("/v1/audit").status_code == 403
        listed = ops.get("/v1/audit").json()["items"]
    done = [(a["principal"], a["method"], a["path"], a["status"], a["result"]) for a in reversed(listed)]
    assert done == [
        ("ops", "POST", "/v1/nves", 201, "done"),
        (None, "GET", "/v1/nves", 401, "denied"),
        ("eyes", "POST", "/v1/nves", 403, "denied"),
        ("eyes", "GET", "/v1/audit", 403, "denied"),
    ]
    assert {a["address"] for a in listed} == {"127.0.0.1"}
    assert "denied nobody from 127.0.0.1: GET /v1/nves: 401 unauthorized" in nva.manager.text
    certificates_are_known_by_their_names(nva)
    old_tls_is_refused(nva)


def certificates_are_known_by_their_names(nva: Place) -> None:
    authorities = nva.authorities
    host1 = authorities.issue("host1", "host1.example.org")
    with nva.client(certificate=host1) as client:
        assert client.get("/v1/nves/nve1").json()["name"] == "nve1"
        assert client.get("/v1/audit").status_code == 403
    other = authorities.issue("host2", "host2.example.org")
    with nva.client(certificate=other) as client:
        refused = client.get("/v1/nves/nve1")
        assert (refused.status_code, "nobody here" in refused.json()["detail"]) == (401, True)


def old_tls_is_refused(nva: Place) -> None:
    context = nva.authorities.context()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with nva.raw() as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock, server_hostname="127.0.0.1")
    with nva.secure() as secure:
        assert secure.version() == "TLSv1.3"


def test_forged_certificates(nva: Place) -> None:
    authorities = nva.authorities
    forged = {
        "of a foreign authority": authorities.issue("foreign", "host1.example.org", by=authorities.foreign),
        "expired": authorities.expired("expired", "host1.example.org"),
        "of itself": self_signed(nva.folder),
    }
    for kind, path in forged.items():
        with nva.client(certificate=path) as client:
            assert answer(client) is None, f"believed: {kind}"
    # a certificate without its key: the handshake cannot be signed
    certificate = authorities.issue("good", "host1.example.org").read_text()
    mixed = nva.folder / "mixed.pem"
    key = forged["of a foreign authority"].read_text().partition("-----BEGIN CERTIFICATE")[0]
    mixed.write_text(key + certificate[certificate.index("-----BEGIN CERTIFICATE") :])
    with pytest.raises(ssl.SSLError):
        nva.authorities.context(mixed)
    with nva.client(nva.tokens["eyes"]) as eyes:
        text = eyes.get("/metrics").text
    failed = re.search(r'vmm_rest_identifications_total\{outcome="handshake-failed"\} (\d+)', text)
    assert failed
    assert int(failed[1]) == len(forged) + 1, "and the connection that waited for the start"


def answer(client: httpx.Client) -> int | None:
    """Status of an answer, None if the connection does not come about."""
    try:
        return client.get("/v1/nves").status_code
    except httpx.TransportError:
        return None


def self_signed(folder: Path) -> Path:
    """A certificate that its holder issued to himself, with the right name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "host1.example.org")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("host1.example.org")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "self.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_certificates_can_be_required(place: Place) -> None:
    manager = place.start(rest_client_required="true")
    manager.connect(manager.rest).close()
    with place.client(place.tokens["ops"]) as client, pytest.raises(httpx.TransportError):
        client.get("/v1/health")
    host1 = place.authorities.issue("host1", "host1.example.org")
    with place.client(place.tokens["ops"], certificate=host1) as client:
        assert client.get("/v1/audit").status_code == 200, "with a token beside it, the token says who"
    refused = place.vmm("status", token=place.tokens["ops"])
    assert (refused.code, "wants a client certificate" in refused.stderr) == (3, True), refused.stderr


def test_credentials_and_certificates_change_without_a_restart(nva: Place) -> None:
    with nva.client(nva.tokens["acme"]) as acme, nva.client(nva.tokens["eyes"]) as eyes:
        assert acme.get("/v1/vms").status_code == 200
        with eyes.stream("GET", "/v1/events") as stream, nva.client(nva.tokens["ops"]) as ops:
            lines = stream.iter_lines()
            assert next(lines)
            file = ("--file", str(nva.credentials))
            assert vmm("credentials", "remove", "acme", *file).code == 0
            assert vmm("credentials", "remove", "eyes", *file).code == 0
            assert acme.get("/v1/vms").status_code == 401
            assert ops.post("/v1/nves", json=NVE).status_code == 201
            # a stream ends with the credentials that it was opened with
            assert not [line for line in lines if line.startswith("data: ")]
    nva.admit("late", "--role", "reader")
    before = nva.authorities.server.read_text()
    nva.authorities.issue("server", "localhost", "127.0.0.1")
    assert nva.authorities.server.read_text() != before
    with nva.client(nva.tokens["late"]) as late:
        assert late.get("/v1/nves").status_code == 200
    shown = ssl.get_server_certificate(("127.0.0.1", nva.manager.rest))
    assert shown.strip() in nva.authorities.server.read_text()
    nva.authorities.server.write_text("broken")
    with nva.client(nva.tokens["late"]) as late:
        assert late.get("/v1/nves").status_code == 200, "the certificate read before stays"
    assert "those read before stay in force" in nva.manager.text


# --- what is refused at the start -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("host", "options", "said"),
    [
        ("0.0.0.0", {"credentials": None}, "without asking who is there; set credentials"),
        ("127.0.0.1", {"rest_cert": "/nowhere.pem"}, "TLS cannot use /nowhere.pem: No such file"),
        ("127.0.0.1", {"rest_key": "locked"}, "locked.pem: the key is locked by a passphrase"),
        ("127.0.0.1", {"mode": 0o644}, "open to others (mode 0644); chmod 0600"),
    ],
)
def test_refused_at_the_start(place: Place, host: str, options: dict[str, Any], said: str) -> None:
    given = dict(options)
    place.credentials.chmod(given.pop("mode", 0o600))
    if "rest_key" in given:
        given["rest_key"] = locked_key(place.folder)  # nobody is there to type anything
    manager = place.start("--wsapi-host", host, "ryu_vmm", **given)
    assert manager.process.wait(DEADLINE) == 1
    assert said in manager.text
    assert "Traceback" not in manager.text
    assert not (place.folder / "vmm.sqlite").exists(), "nothing was touched"


def locked_key(folder: Path) -> Path:
    """A key that wants a passphrase."""
    key, path = ec.generate_private_key(ec.SECP256R1()), folder / "locked.pem"
    locked = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    return path


def test_loopback_without_credentials_is_as_ever(place: Place) -> None:
    manager = place.start(credentials=None, rest_cert=None, rest_client_ca=None)
    manager.connect(manager.rest).close()
    with httpx.Client(base_url=f"http://127.0.0.1:{manager.rest}", timeout=DEADLINE, trust_env=False) as client:
        assert client.post("/v1/nves", json=NVE).status_code == 201
        assert client.get("/v1/audit").json()["items"][0]["principal"] == "local"
        # what somebody else's page can make a browser on this machine send
        evil = {"Origin": "http://evil.example"}
        assert client.post("/v1/nves/nve1/verify", headers=evil).json()["code"] == "foreign-origin"
        assert client.post("/v1/nves/nve1/verify", headers={"Origin": "null"}).status_code == 403
        rebound = client.get("/v1/nves", headers={"Host": "evil.example"})
        assert (rebound.status_code, rebound.json()["code"]) == (421, "foreign-host")
        for host in ("localhost", f"localhost:{manager.rest}", "[::1]:80", "127.0.0.2"):
            assert client.get("/v1/nves", headers={"Host": host}).status_code == 200


def test_other_applications_paths_are_for_admins(place: Place, toy: str) -> None:
    manager = place.start(toy, "ryu_vmm")
    manager.connect(manager.rest).close()
    with place.client() as nobody, place.client(place.tokens["eyes"]) as eyes, place.client(place.tokens["ops"]) as ops:
        assert nobody.get("/hello").status_code == 401
        assert eyes.get("/hello").status_code == 403
        assert ops.get("/hello").text == "hello"


# --- what is left behind ----------------------------------------------------------------------------------------
def test_no_token_is_left_anywhere(nva: Place) -> None:
    ops, acme = nva.tokens["ops"], nva.tokens["acme"]
    wrong = ops[:-3] + "___"
    with nva.client(ops) as admin, nva.client(acme) as tenant, nva.client(wrong) as forger, nva.client() as nobody:
        admin.post("/v1/nves", json=NVE)
        admin.post("/v1/networks", json={"name": "a-net", "vni": 5, "tenant": "acme"})
        tenant.post("/v1/nves", json=NVE)
        tenant.get("/v1/vms")
        forger.get("/v1/vms")
        # where somebody may put a token by mistake
        nobody.get(f"/v1/vms?token={ops}")
        nobody.get(f"/v1/vms/{ops}")
        admin.get(f"/v1/vms?token={ops}")
        admin.delete(f"/v1/vms/{ops}")
        refused = admin.post("/v1/vms", json={"name": ops, "interfaces": []}).text
        refused += admin.post("/v1/moves", json={"vm": "x", "to": ops}).text
        refused += admin.post("/v1/moves/1/abort", json={"why": ops}).text
        listed = admin.get("/v1/audit").text + admin.get("/metrics").text + admin.get("/v1/events?follow=0").text
    nva.vmm("status", token=ops)
    nva.vmm("nve", "show", "nve9", token=ops)
    nva.vmm("audit", "--json", token=wrong)
    raw = f"GET /v1/vms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ops}\r\n".encode()
    with nva.secure() as sock:
        sock.sendall(raw + b"Broken\x00Header\r\n\r\n")
        sock.recv(1000)
    assert nva.manager.end() == 0
    everything = nva.written() + listed
    assert "acme" in everything, "this is where tokens are looked for"
    for secret in (ops, acme, wrong):
        assert secret[13:] not in everything
    stored = json.loads(nva.credentials.read_text())
    assert not [name for name in nva.tokens if nva.tokens[name] and nva.tokens[name][13:] in json.dumps(stored)]


def test_the_audit_survives_a_kill(nva: Place) -> None:
    with nva.client(nva.tokens["ops"]) as ops:
        assert ops.post("/v1/nves", json=NVE).status_code == 201
        assert ops.delete("/v1/nves/nve7").status_code == 404
    nva.manager.process.send_signal(signal.SIGKILL)
    nva.manager.process.wait(DEADLINE)
    manager = nva.start()
    manager.connect(manager.rest).close()
    shown = nva.vmm("audit", "--json", token=nva.tokens["ops"])
    entries = json.loads(shown.stdout)["items"]
    assert [(a["method"], a["result"], a["code"]) for a in entries] == [
        ("DELETE", "refused", "not-found"),
        ("POST", "done", None),
    ]
    assert json.loads(entries[1]["body"])["name"] == "nve1"
    plain = nva.vmm("audit", "--result", "done", token=nva.tokens["ops"])
    assert ("POST /v1/nves" in plain.stdout, "DELETE" in plain.stdout) == (True, False)


# --- the command line -------------------------------------------------------------------------------------------
def test_vmm_shows_who_it_is(nva: Place) -> None:
    file = nva.folder / "token"
    file.write_text(nva.tokens["ops"] + "\n")
    file.chmod(0o600)
    good = [
        nva.vmm("nve", "list", token=nva.tokens["ops"], process=True),
        nva.vmm("nve", "list", env={"VMM_TOKEN_FILE": str(file)}),
        nva.vmm("nve", "list", "--token-file", str(file)),
        nva.vmm("--token-file", str(file), "nve", "list"),
        vmm(
            *("nve", "list", "--token-file", "-", "--url", nva.url, "--cacert", str(nva.authorities.ca)),
            stdin=nva.tokens["ops"] + "\n",
        ),
        nva.vmm("nve", "list", "--cert", str(nva.authorities.issue("h", "host1.example.org"))),
    ]
    assert [(run.code, run.stderr) for run in good] == [(0, "")] * 6
    expected = {
        (): (7, "credentials are needed"),
        ("--token-file", "/nowhere"): (1, "/nowhere: No such file"),
        ("--cacert", "/nowhere"): (3, "--cacert /nowhere: No such file"),
        ("--cert", str(nva.authorities.ca)): (3, "--cert"),
        ("--cert", str(nva.authorities.issue("x", "host2.example.org"))): (7, "nobody here is known"),
        ("--cert", str(nva.authorities.issue("y", "h", by=nva.authorities.foreign))): (3, "does not believe"),
    }
    for words, (code, said) in expected.items():
        run = nva.vmm("nve", "list", *words)
        assert (run.code, said in run.stderr) == (code, True), run.stderr
        assert "Traceback" not in run.stderr
    run = nva.vmm("nve", "add", "n", "--dpid", "1", "--ipv4", "192.0.2.1", token=nva.tokens["eyes"])
    assert (run.code, "is not for the role reader" in run.stderr) == (7, True)
    run = nva.vmm("nve", "list", token="nonsense " + nva.tokens["ops"])
    assert (run.code, nva.tokens["ops"] in run.stderr + run.stdout) == (2, False)
    file.chmod(0o644)
    run = nva.vmm("nve", "list", "--token-file", str(file))
    assert (run.code, "chmod 600" in run.stderr) == (2, True)
    run = nva.vmm("nve", "list", env={"VMM_CACERT": ""})
    assert (run.code, "--cacert names its authority" in run.stderr) == (3, True), run.stderr
    run = nva.vmm("nve", "list", "--url", nva.url.replace("https", "http"))
    assert (run.code, "https://" in run.stderr) == (3, True), run.stderr
    run = vmm("nve", "list", "--url", "http://192.0.2.1:8080", env={"VMM_TOKEN": nva.tokens["ops"]})
    assert (run.code, "for all to read" in run.stderr) == (2, True)
