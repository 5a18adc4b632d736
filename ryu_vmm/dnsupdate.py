"""Telling a name server what names stand for: DNS dynamic update (RFC 2136) over TCP, signed with TSIG (RFC 8945).

An update replaces the A and the AAAA records of names, all of one zone, and touches no other record; the server carries
it out whole or not at all. It is one request and one answer on a connection of its own, written with plain sockets:
under ryu-manager these are eventlet's, so only the thread that asks waits.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.tsig
import dns.update

from .errors import InvalidInput, VmmError
from .tsig import Key

__all__ = ["FUDGE", "Rejected", "Server", "Unanswered", "Updater", "parse_server", "zone_of"]

#: Seconds that a request's time may be off the server's clock, as RFC 8945 section 10 recommends. So long after it was
#: signed a request may still be carried out.
FUDGE = 300
PORT = 53
#: Answers that may be about a single name of the update: what else is in it may be taken without that one.
_ABOUT_NAMES = frozenset(
    {
        dns.rcode.FORMERR,
        dns.rcode.SERVFAIL,  # BIND, for more than so many records of a name, 100 unless told otherwise
        dns.rcode.REFUSED,
        dns.rcode.NXDOMAIN,
        dns.rcode.YXDOMAIN,
        dns.rcode.YXRRSET,
        dns.rcode.NXRRSET,
        dns.rcode.NOTZONE,
    }
)


class Rejected(VmmError):
    """A name server has answered that it did not carry out an update; the message is that answer.

    ``by_name``: others in the same update may be why.
    """

    code = "update-rejected"

    def __init__(self, message: str, by_name: bool = False) -> None:
        super().__init__(message)
        self.by_name = by_name


class Unanswered(VmmError):
    """No answer that can be believed. ``sent``: the server may have carried out the update, or may do so yet."""

    code = "update-unanswered"

    def __init__(self, message: str, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Server(NamedTuple):
    """Where a name server listens."""

    host: str
    port: int = PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_server(given: str) -> Server:
    """A server from ``192.0.2.1``, ``192.0.2.1:5353``, ``2001:db8::1`` or ``[2001:db8::1]:5353``.

    Raises:
        InvalidInput: it is neither; a host's name is not taken, because looking it up would need a name server.
    """
    host, port = given.strip(), str(PORT)
    if host.startswith("["):
        host, bracket, rest = host[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidInput(f"{given!r} is not [address]:port")
        port = rest[1:] if rest else port
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise InvalidInput(f"{given!r} does not begin with an IP address") from None
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise InvalidInput(f"{given!r} does not end in a port")
    return Server(str(address), int(port))


def zone_of(name: str, zones: Sequence[str]) -> str | None:
    """The longest of some zones that a name is in, None if it is in none (all lower case, no final dots)."""
    found = [zone for zone in zones if name == zone or name.endswith(f".{zone}")]
    return max(found, key=len, default=None)


class Updater:
    """Sends updates.

    Args:
        key: gives the key to sign with.
        ttl: of the records, in seconds.
        timeout: seconds for a connection, a request and its answer together.
    """

    def __init__(self, key: Callable[[], Key], ttl: int, timeout: float) -> None:
        self._key, self._ttl, self._timeout = key, ttl, timeout

    def send(self, server: Server, zone: str, names: Mapping[str, Sequence[bytes]]) -> None:
        """Have a server replace the addresses of names in a zone; returns once it has confirmed that.

        Raises:
            Rejected: it has answered that it did not.
            Unanswered: nobody knows whether it did.
        """
        key = self._key()
        update = dns.update.UpdateMessage(dns.name.from_text(zone))
        for name, addresses in names.items():
            owner = dns.name.from_text(name)
            for kind, size in (("A", 4), ("AAAA", 16)):
                texts = [str(ipaddress.ip_address(a)) for a in addresses if len(a) == size]
                update.delete(owner, kind)
                for text in texts:
                    update.add(owner, self._ttl, kind, text)
        update.use_tsig(key.for_dnspython(), fudge=FUDGE)
        try:
            request = update.to_wire(max_size=65535)
        except dns.exception.TooBig:
            raise Rejected("more addresses than fit into an update", by_name=True) from None
        wire = self._exchange(server, request)
        self._check(update, wire, zone, key)

    def _exchange(self, server: Server, request: bytes) -> bytes:
        """The answer to a request. Not dns.query.tcp, whose deadline goes by a clock that can be set back."""
        deadline = time.monotonic() + self._timeout
        sent = False

        def left() -> float:
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                raise TimeoutError
            return seconds

        try:
            with socket.create_connection((server.host, server.port), left()) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sent = True
                sock.settimeout(left())
                sock.sendall(len(request).to_bytes(2, "big") + request)

                def read(size: int) -> bytes:
                    content = b""
                    while len(content) < size:
                        sock.settimeout(left())
                        part = sock.recv(size - len(content))
                        if not part:
                            raise ConnectionAbortedError("it closed the connection without an answer")
                        content += part
                    return content

                return read(int.from_bytes(read(2), "big"))
        except TimeoutError:
            raise Unanswered(f"timeout: no answer within {self._timeout:g} s", sent) from None
        except OSError as e:
            raise Unanswered((os.strerror(e.errno) if e.errno else str(e)).lower(), sent) from None

    def _check(self, update: dns.update.UpdateMessage, wire: bytes, zone: str, key: Key) -> None:
        """Raise unless this is the server's signed word that it has carried out the update."""
        try:
            answer = dns.message.from_wire(wire, keyring=update.keyring, request_mac=update.mac)
        except dns.tsig.PeerBadKey:
            raise Rejected(f"BADKEY: it has no key {key.name} for {key.algorithm}") from None
        except dns.tsig.PeerBadSignature:
            raise Rejected(f"BADSIG: its secret of the key {key.name} is another one") from None
        except dns.tsig.PeerBadTime:
            raise Rejected(f"BADTIME: {_skew(wire)}") from None
        except dns.tsig.PeerError as e:
            raise Rejected(f"TSIG error: {e}") from None
        except dns.tsig.BadTime:
            raise Unanswered("its answer is signed at a time that is not now: clocks differ", True) from None
        except (dns.tsig.BadSignature, dns.tsig.BadKey, dns.tsig.BadAlgorithm, dns.message.UnknownTSIGKey):
            raise Unanswered(f"the signature of its answer is not by the key {key.name}", True) from None
        except (dns.exception.DNSException, ValueError) as e:
            code = _unsigned(update, wire)
            if code is None:
                raise Unanswered(f"its answer is not one: {type(e).__name__}", True) from None
            raise self._refusal(code, zone, "its answer is not signed") from None
        if not update.is_response(answer):
            raise Unanswered("its answer is to something else", True)
        if not answer.had_tsig or answer.rcode() != dns.rcode.NOERROR:
            raise self._refusal(answer.rcode(), zone, "" if answer.had_tsig else "its answer is not signed")

    def _refusal(self, code: dns.rcode.Rcode, zone: str, unsigned: str) -> VmmError:
        text = dns.rcode.to_text(code)
        if code == dns.rcode.NOERROR:
            return Unanswered(f"{unsigned} ({text})", True)
        if code == dns.rcode.NOTAUTH:
            text += f": it is not in charge of zone {zone}"
        return Rejected(f"{text} ({unsigned})" if unsigned else text, by_name=code in _ABOUT_NAMES)


def _skew(wire: bytes) -> str:
    """How far the clocks are apart: the TSIG record, and with it the answer, ends in the server's (RFC 8945 5.2.3)."""
    skew = int.from_bytes(wire[-6:], "big") - time.time()
    if abs(skew) > 10 * 366 * 86400:
        return f"its clock and ours differ by more than {FUDGE} s"
    return f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours; {FUDGE} s are tolerated"


def _unsigned(update: dns.update.UpdateMessage, wire: bytes) -> dns.rcode.Rcode | None:
    """What an answer says that is right but for a missing signature; None if it is not that."""
    try:
        answer = dns.message.from_wire(wire, question_only=True)
    except (dns.exception.DNSException, ValueError):
        return None
    if answer.id != update.id or wire[10:12] != b"\0\0":
        return None
    return dns.rcode.Rcode(wire[3] & 0x0F)
