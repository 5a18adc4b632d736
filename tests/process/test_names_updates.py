"""Updates at a real name server, without an NVA around: keys of every kind, clocks, records that are not ours."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

import pytest
from names_lab import name_server

from ryu_vmm.dnsupdate import Rejected, Updater, parse_server
from ryu_vmm.tsig import ALGORITHMS, read_key
from topologies.nameserver import NameServer

__all__ = ["name_server"]

NAME, ZONE = "web.example.org", "example.org"


def ips(*texts: str) -> list[bytes]:
    return [ipaddress.ip_address(text).packed for text in texts]


def updater(server: NameServer) -> Updater:
    key = read_key(server.key_file)
    return Updater(lambda: key, 5, 5.0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_keys_as_tsig_keygen_makes_them(algorithm: str) -> None:
    with NameServer(algorithm=algorithm, key="Mover.Example") as server:
        updater(server).send(parse_server(server.address), ZONE, {NAME: ips("10.0.0.1")})
        updater(server).send(parse_server(server.address6), ZONE, {NAME: ips("10.0.0.2", "2001:db8::2")})
        assert server.resolve(NAME) == ("10.0.0.2", "2001:db8::2")


def test_only_the_addresses_of_a_name_are_replaced(name_server: NameServer) -> None:
    here, to = updater(name_server), parse_server(name_server.address)
    here.send(to, ZONE, {NAME: ips("10.0.0.1", "10.0.0.2", "2001:db8::1"), f"a.{NAME}": ips("10.0.0.3")})
    assert name_server.resolve(NAME) == ("10.0.0.1", "10.0.0.2", "2001:db8::1")
    here.send(to, ZONE, {NAME: ips("2001:db8::9")})
    assert name_server.resolve(NAME) == ("2001:db8::9",)
    here.send(to, ZONE, {NAME: []})
    assert name_server.resolve(NAME) == ()
    assert name_server.records(NAME, "TXT") == ('"not ours"',)
    assert name_server.resolve(f"a.{NAME}") == ("10.0.0.3",)
    assert name_server.resolve("other.example.org") == ("192.0.2.99",)


def test_an_update_is_taken_whole_or_not_at_all(name_server: NameServer) -> None:
    names = {NAME: ips("10.0.0.1"), "web.example.com": ips("10.0.0.2")}
    with pytest.raises(Rejected, match="NOTZONE") as caught:
        updater(name_server).send(parse_server(name_server.address), ZONE, names)
    assert caught.value.by_name
    assert name_server.resolve(NAME) == ()


@pytest.mark.parametrize(("skew", "side"), [(400, "behind"), (-7200, "ahead of")])
def test_clocks_that_differ(
    name_server: NameServer, monkeypatch: pytest.MonkeyPatch, skew: int, side: str
) -> None:
    now: Callable[[], float] = time.time
    monkeypatch.setattr(time, "time", lambda: now() + skew)
    with pytest.raises(Rejected, match=rf"BADTIME: its clock is \d+ s {side} ours; 300 s are tolerated") as caught:
        updater(name_server).send(parse_server(name_server.address), ZONE, {NAME: ips("10.0.0.1")})
    monkeypatch.undo()
    assert abs(int(caught.value.message.split()[4]) - abs(skew)) <= 60
    assert name_server.resolve(NAME) == ()


def test_a_name_with_more_addresses_than_the_server_takes(name_server: NameServer) -> None:
    many = ips(*(f"10.0.0.{n}" for n in range(1, 102)))
    here, to = updater(name_server), parse_server(name_server.address)
    here.send(to, ZONE, {NAME: many[:100]})
    with pytest.raises(Rejected, match="SERVFAIL") as caught:
        here.send(to, ZONE, {NAME: many})
    assert caught.value.by_name, "others in the update may be taken without it"
    assert len(name_server.resolve(NAME)) == 100
