"""Talking to the NVA, and what its refusals come to as exit codes."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

__all__ = [
    "CONFLICT",
    "DENIED",
    "FAILED",
    "INVALID",
    "NOT_FOUND",
    "UNREACHABLE",
    "Client",
    "Refused",
    "Shown",
    "Unreachable",
    "at",
]

FAILED, USAGE, UNREACHABLE, NOT_FOUND, CONFLICT, INVALID, DENIED = 1, 2, 3, 4, 5, 6, 7
#: HTTP status to exit code; any other problem is FAILED.
_EXIT = {
    400: INVALID,
    401: DENIED,
    403: DENIED,
    404: NOT_FOUND,
    409: CONFLICT,
    413: INVALID,
    415: INVALID,
    422: INVALID,
    429: DENIED,
}
PAGE = 1000


def at(*parts: str) -> str:
    """The path of something below /v1, whatever characters a name has."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


#: What TLS failures say, and what that means for whoever called us.
_TLS = {
    "CERTIFICATE_VERIFY_FAILED": "the certificate of {url} is not believed: {why}; --cacert names its authority",
    "WRONG_VERSION_NUMBER": "{url} does not speak TLS; http:// perhaps?",
    "RECORD_LAYER_FAILURE": "{url} does not speak TLS; http:// perhaps?",
    "CERTIFICATE_REQUIRED": "the NVA at {url} wants a client certificate: --cert and --key",
    "ALERT_UNKNOWN_CA": "the NVA at {url} does not believe the client certificate: {why}",
    "ALERT_CERTIFICATE_EXPIRED": "the NVA at {url} does not believe the client certificate: {why}",
    "ALERT_BAD_CERTIFICATE": "the NVA at {url} does not believe the client certificate: {why}",
    "ALERT_DECRYPT_ERROR": "the NVA at {url} does not believe the client certificate: {why}",
}


class Unreachable(Exception):
    """Nobody answers at the URL, or not the NVA."""


class Refused(Exception):
    """The NVA answered with a problem; ``document`` is its RFC 9457 document, ``exit_code`` what it comes to."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(str(document.get("detail")))
        self.document = document
        status = document.get("status")
        self.exit_code = _EXIT.get(status, FAILED) if isinstance(status, int) else FAILED


@dataclass(frozen=True, slots=True)
class Shown:
    """What a client shows and believes.

    Attributes:
        token: a bearer token.
        cert, key: PEM files of the client; the key may be in the certificate's.
        cacert: PEM file with the authority of the NVA's certificate; None: those of the system.
    """

    token: str | None = field(default=None, repr=False)
    cert: str | None = None
    key: str | None = None
    cacert: str | None = None

    def context(self) -> ssl.SSLContext:
        """For TLS. Unreachable: a file is of no use."""
        try:
            made = ssl.create_default_context(cafile=self.cacert)
        except OSError as e:
            raise Unreachable(f"--cacert {self.cacert}: {e.strerror or e}") from None
        if self.cert is not None:
            try:
                made.load_cert_chain(self.cert, self.key)
            except (OSError, ValueError) as e:
                names = self.cert if self.key is None else f"{self.cert} --key {self.key}"
                raise Unreachable(f"--cert {names}: {getattr(e, 'strerror', None) or e}") from None
        return made


class Client:
    """The REST API at a URL.

    Args:
        url: e.g. ``http://127.0.0.1:8080``.
        timeout: seconds to wait for a connection, and for each answer.
        shown: token and certificates.

    Attributes:
        answered: something has come that might be the NVA's.
    """

    def __init__(self, url: str, timeout: float, shown: Shown | None = None) -> None:
        self.url = url
        self.answered = False
        shown = shown or Shown()
        # Loading the certificates of all authorities takes longer than most requests: only where they are needed.
        verify = shown.context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        headers = {} if shown.token is None else {"Authorization": f"Bearer {shown.token}"}
        # Proxies of the environment are for the web, not for a controller on loopback.
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False, verify=verify, headers=headers)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The document of the answer, None if there is none. Raises Refused, Unreachable."""
        wanted = {name: value for name, value in query.items() if value is not None}
        try:
            response = self._http.request(method, path, json=body, params=wanted)
        except httpx.TransportError as e:
            raise self._unreachable(e) from e
        except httpx.HTTPError as e:  # a body that is not what its headers say
            raise self._no_nva(str(e)) from e
        return self._document(response)

    def get(self, path: str, **query: Any) -> Any:
        """GET."""
        return self.call("GET", path, **query)

    def items(
        self, path: str, most: int | None = None, after: str | None = None, **query: Any
    ) -> Iterator[dict[str, Any]]:
        """All items of a list (or the first ``most``), page by page, from after ``after``."""
        left = most
        while left is None or left > 0:
            limit = PAGE if left is None else min(PAGE, left)
            page = self.get(path, limit=limit, after=after, **query)
            yield from page["items"]
            if page["next"] is None:
                return
            if page["next"] == after or not page["items"]:
                raise self._no_nva("its lists have no end")
            after = page["next"]
            if left is not None:
                left -= len(page["items"])

    def events(self, after: str | None = None, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Events as they happen, until the connection ends."""
        headers = {} if after is None else {"Last-Event-ID": after}
        query = {} if kind is None else {"kind": kind}
        # A stream is silent while nothing happens, but for a comment every 15 seconds.
        patience = httpx.Timeout(self._http.timeout.connect, read=60.0)
        try:
            with self._http.stream("GET", "/v1/events", headers=headers, params=query, timeout=patience) as response:
                if response.status_code != 200:
                    response.read()
                    self._document(response)
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line.removeprefix("data: "))
        except httpx.TransportError as e:
            raise self._unreachable(e) from e

    def _document(self, response: httpx.Response) -> Any:
        self.answered = True
        if response.status_code == 204:
            return None
        try:
            document = response.json()
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._no_nva(f"HTTP {response.status_code}")
        if response.headers.get("content-type", "").startswith("application/problem+json"):
            raise Refused(document)
        # 503 without a problem is what /v1/ready says when the NVA is not.
        if response.status_code not in (200, 201, 202, 503):
            raise self._no_nva(f"HTTP {response.status_code}")
        return document

    def _no_nva(self, why: str) -> Unreachable:
        return Unreachable(f"what answers at {self.url} is not the NVA ({why})")

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        text = str(error)
        for sign, words in _TLS.items():
            if sign in text:
                why = text.partition("] ")[2].partition(" (_ssl")[0] or text
                return Unreachable(words.format(url=self.url, why=why))
        if "without sending a response" in text and self.url.startswith("http:"):
            return Unreachable(f"what answers at {self.url} hung up; does it speak TLS (https://)?")
        if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
            return Unreachable(f"no NVA at {self.url}: {error}")
        if isinstance(error, httpx.TimeoutException):
            return Unreachable(f"the NVA at {self.url} did not answer in time")
        return Unreachable(f"the connection to {self.url} broke: {error}")
