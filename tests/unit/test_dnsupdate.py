"""Updates as they go over the wire, and what is made of every answer that a server, or somebody else, may give."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update
import pytest

from ryu_vmm.dnsupdate import Rejected, Server, Unanswered, Updater
from ryu_vmm.tsig import Key

KEY = Key("nva", "hmac-sha256", bytes(range(32)))
ZONE, WEB = "example.org", "web.example.org"
Answer = Callable[[dns.message.Message], bytes]


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


class Fake:
    """A server that answers one request after the other as a test says."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.server = Server("127.0.0.1", self._listening.getsockname()[1])
        self.requests: list[dns.message.Message] = []
        self.answer: Answer = lambda request: dns.message.make_response(request).to_wire()
        self.raw: Callable[[bytes], bytes] = lambda wire: len(wire).to_bytes(2, "big") + wire
        self.patience = 0.0  # seconds for which a connection stays open after the answer
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            sock, _ = self._listening.accept()
            if self._end.is_set():
                sock.close()
                return
            with sock, sock.makefile("rb") as file:
                sock.settimeout(5)
                wire = file.read(int.from_bytes(file.read(2), "big"))
                request = dns.message.from_wire(wire, keyring=KEY.for_dnspython())
                self.requests.append(request)
                sock.sendall(self.raw(self.answer(request)))
                if self.patience:
                    with contextlib.suppress(OSError):
                        sock.settimeout(self.patience)
                        sock.recv(1)  # until the other side closes

    def close(self) -> None:
        self._end.set()
        socket.create_connection(self.server).close()
        self._thread.join(5)
        self._listening.close()


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.close()


def send(fake: Fake, timeout: float = 5.0, **names: list[str]) -> None:
    given = {f"{name}.{ZONE}": [ip(a) for a in some] for name, some in (names or {"web": ["10.0.0.1"]}).items()}
    Updater(lambda: KEY, 5, timeout).send(fake.server, ZONE, given)


def rcode(code: dns.rcode.Rcode, signed: bool = True) -> Answer:
    def answer(request: dns.message.Message) -> bytes:
        made = dns.message.make_response(request)
        made.set_rcode(code)
        if not signed:
            made.tsig = None
        return made.to_wire()

    return answer


def test_what_an_update_says(fake: Fake) -> None:
    send(fake, web=["10.0.0.1", "10.0.0.2", "2001:db8::1"], gone=[])
    [request] = fake.requests
    assert isinstance(request, dns.update.UpdateMessage)
    assert [str(rrset.name) for rrset in request.zone] == ["example.org."] and not request.prerequisite
    said = [
        (str(r.name), "delete" if r.deleting == dns.rdataclass.ANY else "", dns.rdatatype.to_text(r.rdtype), r.ttl, *r)
        for r in request.update
    ]
    said = [tuple(str(part) for part in one) for one in said]
    assert said == [
        ("web.example.org.", "delete", "A", "0"),
        ("web.example.org.", "", "A", "5", "10.0.0.1"),
        ("web.example.org.", "", "A", "5", "10.0.0.2"),
        ("web.example.org.", "delete", "AAAA", "0"),
        ("web.example.org.", "", "AAAA", "5", "2001:db8::1"),
        ("gone.example.org.", "delete", "A", "0"),
        ("gone.example.org.", "delete", "AAAA", "0"),
    ]
    assert request.had_tsig and str(request.keyname) == "nva." and str(request.keyalgorithm) == "hmac-sha256."


@pytest.mark.parametrize(
    ("code", "by_name"),
    [
        (dns.rcode.REFUSED, True),
        (dns.rcode.NOTZONE, True),
        (dns.rcode.FORMERR, True),
        (dns.rcode.SERVFAIL, True),
        (dns.rcode.NOTIMP, False),
    ],
)
@pytest.mark.parametrize("signed", [True, False])
def test_a_server_says_no(fake: Fake, code: dns.rcode.Rcode, by_name: bool, signed: bool) -> None:
    fake.answer = rcode(code, signed)
    with pytest.raises(Rejected) as caught:
        send(fake)
    assert caught.value.message.startswith(dns.rcode.to_text(code))
    assert ("not signed" in caught.value.message) is not signed
    assert caught.value.by_name is by_name


def test_a_server_of_other_zones(fake: Fake) -> None:
    fake.answer = rcode(dns.rcode.NOTAUTH)
    with pytest.raises(Rejected, match=r"^NOTAUTH: it is not in charge of zone example\.org$"):
        send(fake)


def tampered(request: dns.message.Message) -> bytes:
    wire = bytearray(dns.message.make_response(request).to_wire())
    wire[-20] ^= 1  # within the MAC
    return bytes(wire)


def another_key(request: dns.message.Message) -> bytes:
    made = dns.message.make_response(request)
    made.use_tsig(Key("nva", "hmac-sha256", b"x" * 32).for_dnspython())
    made.request_mac = request.mac
    return made.to_wire()


def another_request(request: dns.message.Message) -> bytes:
    made = dns.message.make_response(request)
    made.id ^= 1
    return made.to_wire()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (rcode(dns.rcode.NOERROR, signed=False), r"its answer is not signed \(NOERROR\)"),
        (tampered, "signature of its answer"),
        (another_key, "signature of its answer"),
        (another_request, "its answer is"),
        (lambda request: b"", "its answer is not one: ShortHeader"),
        (lambda request: b"\0" * 11, "its answer is not one: ShortHeader"),
        (lambda request: request.id.to_bytes(2, "big") + b"\xff" * 40, "its answer is not one"),
        (lambda request: dns.message.make_response(request).to_wire() + b"more", "its answer is not one"),
    ],
)
def test_an_answer_that_proves_nothing_leaves_it_open(fake: Fake, answer: Answer, why: str) -> None:
    fake.answer = answer
    with pytest.raises(Unanswered, match=why) as caught:
        send(fake)
    assert caught.value.sent


def tsig_error(code: int) -> Answer:
    """As a server answers that cannot believe a request: a TSIG record with an error; its time follows for BADTIME."""

    def answer(request: dns.message.Message) -> bytes:
        made = dns.message.make_response(request)
        made.set_rcode(dns.rcode.NOTAUTH)
        other = int(time.time() + 3600).to_bytes(6, "big") if code == dns.rcode.BADTIME else b""
        made.use_tsig(KEY.for_dnspython(), tsig_error=code, other_data=other)
        made.request_mac = request.mac
        return made.to_wire()

    return answer


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (dns.rcode.BADKEY, "BADKEY: it has no key nva for hmac-sha256"),
        (dns.rcode.BADSIG, "BADSIG: its secret of the key nva is another one"),
        (dns.rcode.BADTIME, r"BADTIME: its clock is (35\d\d|3600) s ahead of ours; 300 s are tolerated"),
        (dns.rcode.BADTRUNC, "TSIG error"),
        (4000, "TSIG error: unknown TSIG error code 4000"),
    ],
)
def test_a_server_that_cannot_believe_us(fake: Fake, code: int, why: str) -> None:
    fake.answer = tsig_error(code)
    with pytest.raises(Rejected, match=why) as caught:
        send(fake)
    assert not caught.value.by_name


def test_an_answer_of_another_time(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    late = time.time() + 1000

    def answer(request: dns.message.Message) -> bytes:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: late)
            return dns.message.make_response(request).to_wire()

    fake.answer = answer
    with pytest.raises(Unanswered, match="clocks differ"):
        send(fake)


def test_silence(fake: Fake) -> None:
    fake.raw, fake.patience = (lambda wire: b""), 30.0
    begun = time.monotonic()
    with pytest.raises(Unanswered, match=r"timeout: no answer within 1 s") as caught:
        send(fake, timeout=1.0)
    assert caught.value.sent and 1.0 <= time.monotonic() - begun < 20


def test_an_answer_that_stops_halfway(fake: Fake) -> None:
    fake.raw, fake.patience = (lambda wire: len(wire).to_bytes(2, "big") + wire[:7]), 30.0
    with pytest.raises(Unanswered, match="timeout") as caught:
        send(fake, timeout=1.0)
    assert caught.value.sent
    fake.patience = 0.0
    with pytest.raises(Unanswered, match=r"closed the connection|reset"):
        send(fake, timeout=5)


def test_nobody_there(fake: Fake) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, but nobody listens
        nobody = Server("127.0.0.1", unused.getsockname()[1])
        with pytest.raises(Unanswered, match="connection refused") as caught:
            Updater(lambda: KEY, 5, 1.0).send(nobody, ZONE, {WEB: []})
    assert not caught.value.sent


def test_more_addresses_than_fit_are_not_sent(fake: Fake) -> None:
    many = [(n << 16 | 1).to_bytes(16, "big") for n in range(1, 3000)]
    with pytest.raises(Rejected, match="more addresses than fit") as caught:
        Updater(lambda: KEY, 5, 1.0).send(fake.server, ZONE, {WEB: many})
    assert caught.value.by_name and not fake.requests
