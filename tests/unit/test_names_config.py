"""Options about names: what goes together, and what is refused at start, in words."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ryu_vmm import config
from ryu_vmm.dnsupdate import Server
from ryu_vmm.errors import InvalidInput
from ryu_vmm.tsig import KeyUnusable


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "nva.key"
    secret = base64.b64encode(bytes(32)).decode()
    path.write_text(f'key "nva" {{ algorithm hmac-sha256; secret "{secret}"; }};')
    path.chmod(0o600)
    return str(path)


def options(**given: Any) -> dict[str, Any]:
    """The group [vmm] with these options and defaults for the rest."""
    defaults = {option.name: option.default for option in config.OPTIONS}
    return {"vmm": SimpleNamespace(**{**defaults, **given})}


def test_names_are_not_published_unless_told() -> None:
    assert config.publisher(options())._servers == ()


def test_servers_zones_and_key(key_file: str) -> None:
    made = config.publisher(options(
        dns_servers=["192.0.2.1", "[2001:db8::1]:5353"], dns_zones=["Tasks.Example.ORG.", "example.net"],
        dns_key_file=key_file,
    ))  # fmt: skip
    assert made._servers == (Server("192.0.2.1", 53), Server("2001:db8::1", 5353))
    assert made._zones == ("tasks.example.org", "example.net")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"dns_servers": ["192.0.2.1"], "dns_zones": ["example.org"]}, "dns_servers needs dns_key_file"),
        ({"dns_servers": ["192.0.2.1"], "dns_key_file": "x"}, "dns_servers needs dns_zones"),
        ({"dns_zones": ["example.org"]}, "dns_zones is of no use without dns_servers"),
        ({"dns_key_file": "x"}, "dns_key_file is of no use without dns_servers"),
        (
            {"dns_servers": ["ns.example.org"], "dns_zones": ["example.org"], "dns_key_file": "x"},
            "dns_servers: 'ns.example.org' does not begin with an IP address",
        ),
        (
            {"dns_servers": ["192.0.2.1"], "dns_zones": ["exa mple.org"], "dns_key_file": "x"},
            "dns_zones: 'exa mple.org' is not a host name",
        ),
    ],
)
def test_what_does_not_go_together(given: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        config.publisher(options(**given))
    assert why in caught.value.message


def test_a_key_file_that_cannot_be_used(key_file: str) -> None:
    Path(key_file).chmod(0o644)
    given = {"dns_servers": ["192.0.2.1"], "dns_zones": ["example.org"], "dns_key_file": key_file}
    with pytest.raises(KeyUnusable, match="open to every user"):
        config.publisher(options(**given))
