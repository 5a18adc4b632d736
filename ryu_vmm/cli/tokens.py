"""Tokens, as whoever sends one keeps it: read from a file that is nobody else's, and never sent for all to read."""

from __future__ import annotations

import ipaddress
import os
import re
import stat

import httpx

from ..errors import InvalidInput

__all__ = ["check_url", "checked_token", "guard_token", "token_in"]


def token_in(path: str) -> str:
    """The token in the first line of a file. InvalidInput: there is none, or others can open it. OSError."""
    with open(path) as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode) and mode & 0o007:
            raise InvalidInput(f"others can open {path}; chmod 600")
        return checked_token(file.readline(), path)


def checked_token(text: str, where: str) -> str:
    """A token without the white space around it. InvalidInput: there is none in ``where``, or it is none."""
    token = text.strip()
    if not token:
        raise InvalidInput(f"there is no token in {where}")
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token):
        raise InvalidInput("what was given as a token is none")  # it is not repeated: it may be a secret
    return token


def check_url(url: str) -> httpx.URL:
    """The URL of an NVA, taken apart. InvalidInput: it is none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as e:
        raise InvalidInput(f"--url: {e}") from e
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInput(f"--url: {url} is not an http URL")
    return parsed


def guard_token(url: str, token: str | None, unless: str) -> None:
    """Refuse to send a token over plain HTTP to another machine; ``unless``: how that is allowed. InvalidInput."""
    parsed = check_url(url)
    if token is not None and parsed.scheme == "http" and not _is_here(parsed.host):
        raise InvalidInput(f"a token would go to {url} for all to read; use https, or {unless}")


def _is_here(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
