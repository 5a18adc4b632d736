"""What fields of requests look like: the types that the models of schema.py and routed.py are made of."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from . import addresses
from .checking import shortened
from .errors import InvalidInput
from .hostnames import parse_hostname

_T = TypeVar("_T")


def _whole(value: object, info: ValidationInfo) -> object:
    """A whole number and nothing that merely resembles one; text counts where the source knows only text."""
    if isinstance(value, str) and info.context and info.context.get("text"):
        try:
            return int(value, 16 if value[:2].lower() == "0x" else 10)
        except ValueError:
            raise ValueError("not a whole number") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not a whole number")
    return value


def _address(parse: Callable[[str], bytes], text: Callable[[bytes], str]) -> AfterValidator:
    def canonical(given: str) -> str:
        try:
            return text(parse(given))
        except InvalidInput as e:
            raise ValueError(e.message) from None

    return AfterValidator(canonical)


def _dpid(given: str) -> str:
    try:
        return addresses.format_dpid(addresses.parse_dpid(given))
    except InvalidInput as e:
        raise ValueError(e.message) from None


def _host_name(given: str) -> str:
    try:
        return parse_hostname(given)
    except InvalidInput as e:
        raise ValueError(e.message) from None


def distinct(values: list[_T]) -> list[_T]:
    if len(set(values)) != len(values):
        raise ValueError("the same value twice")
    return values


_NAME = r"^[A-Za-z0-9._-]{1,63}$"
_PORT = r"^[!-.0-~]{1,15}$"
_TOKEN = r"^[!-~]{1,128}$"
_WORDS = r"^[^\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]{1,256}$"
_START = r"^[!-~]{0,64}$"
_MEANING = {
    _NAME: "a name: 1 to 63 letters, digits, dots, underscores or hyphens",
    _PORT: "an OpenFlow port name: 1 to 15 printable ASCII characters without space and slash",
    _TOKEN: "an identifier: 1 to 128 printable ASCII characters without space",
    _WORDS: "text of 1 to 256 characters without control characters",
    _START: "up to 64 printable ASCII characters without space",
}


def like(pattern: str) -> AfterValidator:
    fits = re.compile(pattern.removeprefix("^").removesuffix("$")).fullmatch

    def matching(given: str) -> str:
        if not fits(given):
            raise ValueError(f"{shortened(given)} is not {_MEANING[pattern]}")
        return given

    return AfterValidator(matching)


def _text(pattern: str) -> Any:
    return Field(description=_MEANING[pattern], json_schema_extra={"pattern": pattern})


Name = Annotated[str, like(_NAME), _text(_NAME)]
PortName = Annotated[str, like(_PORT), _text(_PORT)]
Token = Annotated[str, like(_TOKEN), _text(_TOKEN)]
Words = Annotated[str, like(_WORDS), _text(_WORDS)]
Start = Annotated[str, like(_START)]
Dpid = Annotated[
    str,
    AfterValidator(_dpid),
    Field(description="OpenFlow datapath id, 16 hexadecimal digits", examples=["0000000000000001"]),
]
Mac = Annotated[
    str,
    _address(addresses.parse_mac, addresses.format_mac),
    Field(description="unicast MAC address", examples=["02:00:00:00:00:01"]),
]
Ipv4 = Annotated[
    str,
    _address(addresses.parse_ipv4, addresses.format_ip),
    Field(description="unicast IPv4 address", json_schema_extra={"format": "ipv4"}),
]
Ipv6 = Annotated[
    str,
    _address(addresses.parse_ipv6, addresses.format_ip),
    Field(description="unicast IPv6 address", json_schema_extra={"format": "ipv6"}),
]
Ip = Annotated[
    str,
    _address(addresses.parse_ip, addresses.format_ip),
    Field(description="IPv4 or IPv6 address"),
]
HostName = Annotated[
    str,
    AfterValidator(_host_name),
    Field(description="host name, at most 253 bytes; kept in lower case", examples=["web.example.org"]),
]
Whole = Annotated[int, BeforeValidator(_whole)]
Targets = Annotated[list[Name], Field(max_length=1000), AfterValidator(distinct)]


def _network(lengths: range) -> Callable[[str], str]:
    def canonical(given: str) -> str:
        try:
            found = ipaddress.ip_network(given)
        except ValueError as e:
            raise ValueError(f"{shortened(given)} is not a prefix: {e}") from None
        if found.prefixlen not in lengths or found.is_multicast or found.is_loopback or found.is_link_local:
            raise ValueError(f"{shortened(given)} is not a prefix that guests can have addresses of")
        return str(found)

    return canonical


def _half(given: str) -> str:
    text = _network(range(64, 65))(given)
    if ":" not in text:
        raise ValueError(f"{shortened(given)} is not an IPv6 prefix of 64 bits")
    return text


Prefix = Annotated[
    str,
    AfterValidator(_network(range(8, 127))),
    Field(description="address/length, without bits beyond the length", examples=["10.1.1.0/24"]),
]
Half = Annotated[str, AfterValidator(_half), Field(description="IPv6 prefix of 64 bits", examples=["2001:db8:5::/64"])]


class Input(BaseModel):
    """What all request bodies have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)
