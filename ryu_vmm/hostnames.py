"""Host names as the domain name system has them, between the text of the borders and what the core keeps."""

from __future__ import annotations

import re

from .errors import InvalidInput

__all__ = ["parse_hostname"]

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def parse_hostname(text: str, field: str = "") -> str:
    """A name in lower case and without final dot: at most 253 bytes (RFC 1035 section 2.3.4), of labels of 1 to 63
    letters, digits, hyphens and underscores that neither begin nor end with a hyphen (RFC 1123 section 2.1).

    Raises:
        InvalidInput: it is none, or it would be taken for an IPv4 address.

    >>> parse_hostname("Web.Example.ORG.")
    'web.example.org'
    """
    name = text.lower().removesuffix(".") if isinstance(text, str) and text.isascii() else ""
    labels = name.split(".")
    why = ""
    if not name:
        why = "not a host name in ASCII"
    elif len(name) > 253:
        why = f"a host name of {len(name)} bytes, where 253 are the most"
    elif not all(_LABEL.fullmatch(label) for label in labels):
        why = (
            "not a host name: labels of 1 to 63 letters, digits, hyphens and underscores, with dots between, that "
            "neither begin nor end with a hyphen"
        )
    elif labels[-1].isdecimal():
        why = "not a host name: it ends like an IPv4 address"
    if why:
        shown = repr(text) if len(repr(text)) <= 80 else repr(text)[:77] + "..."
        raise InvalidInput(f"{shown} is {why}", field=field)
    return name
