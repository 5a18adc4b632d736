"""The commands that make an edge, and what a host's edge is told to be wrong: values in, values out."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from ryu_vmm.cli.root import vmm
from ryu_vmm.edge import checking
from ryu_vmm.edge.host import Host
from ryu_vmm.edge.plan import BACKOFF, PROBE, TAP_QUEUE, TUNNEL_OPTIONS, Edge, Tls, Uplink, default_dpid, target
from ryu_vmm.edge.reading import Controller, Found, Link, Port
from ryu_vmm.errors import InvalidInput

NVA = "tcp:192.0.2.10:6653"


def commands(edge: Edge, host: Host | None = None) -> list[str]:
    shown = [(host or Host()).shown(step, len(edge.controllers)) for step in edge.steps()]
    return [" ".join(one.replace("\\\n", "").split()) for one in shown]


def test_the_bridge_is_closed_before_anybody_controls_it_and_timers_come_after_the_row() -> None:
    told = commands(Edge("nve1", (NVA,), ipv4="192.0.2.1"))
    bridge, row, timers = (
        next(n for n, line in enumerate(told) if word in line)
        for word in ("disable-in-band=true", "set-controller", "max_backoff")
    )
    assert bridge < row < timers
    assert "fail_mode=secure" in told[bridge]
    assert "protocols=OpenFlow13" in told[bridge]
    assert "max_backoff" not in told[row]
    assert "connection_mode=out-of-band" in told[timers]


def test_several_controllers_go_by_their_rows_ids() -> None:
    edge = Edge("nve1", (NVA, "tcp:[2001:db8::10]", NVA), ipv4="192.0.2.1")
    assert edge.controllers == (NVA, "tcp:[2001:db8::10]:6653")
    last = commands(edge)[-1]
    assert last.startswith("for row in $(ovs-vsctl get bridge br-int controller | tr -d '[],'); do ")
    assert "set controller $row" in last


def test_certificates_come_before_a_controller_by_tls() -> None:
    edge = Edge("nve1", ("ssl:192.0.2.10",), ipv6="2001:db8::1", tls=Tls("k.pem", "c.pem", "ca.pem"))
    told = commands(edge)
    assert told.index("ovs-vsctl set-ssl k.pem c.pem ca.pem") < told.index(
        "ovs-vsctl set-controller br-int ssl:192.0.2.10:6653"
    )
    assert edge.mtu == 1520


def test_a_database_elsewhere_and_the_userspace_datapath() -> None:
    edge = Edge("nve1", (NVA,), ipv4="192.0.2.1/24", ipv6="2001:db8::1/64", datapath_type="netdev", locator="fd00::/64",
                uplink=Uplink("eth1", routers=("192.0.2.254",)), routed_port="gre", taps=("vnet0",))  # fmt: skip
    told = commands(edge, Host("unix:/run/x/db.sock"))
    assert all("--db=unix:/run/x/db.sock" in line for line in told if line.startswith("ovs-vsctl"))
    assert "ethtool -K eth1 tx off" in told
    assert "ip -4 route replace default via 192.0.2.254 dev br-ext" in told
    assert f"ip link set dev vnet0 txqueuelen {TAP_QUEUE}" in told
    assert sum("csum=true" in line for line in told) == 2
    assert any(line.startswith("ovs-ofctl add-flow unix:/run/x/br-ext.mgmt priority=100,ipv6") for line in told)


@pytest.mark.parametrize(("changed", "says"), [
    ({"ipv4": None}, "underlay address"),
    ({"ipv4": "2001:db8::1"}, "not an IPv4 address"),
    ({"ipv4": "0.0.0.0"}, "not an IPv4 address"),
    ({"uplink": Uplink("eth1")}, "prefix length"),
    ({"controllers": ("ssl:192.0.2.10",)}, "a key, a certificate"),
    ({"controllers": ("192.0.2.10:6653",)}, "is no controller"),
    ({"controllers": ("tcp:192.0.2.10:66530",)}, "is no controller"),
    ({"controllers": ("tcp:[192.0.2.10]:6653",)}, "is no controller"),
    ({"controllers": ("tcp:a;reboot:1",)}, "is no controller"),
    ({"datapath_type": "dpdk"}, "neither system nor netdev"),
    ({"tunnel_port": "br-int"}, "two different things"),
    ({"taps": ("tap with spaces",)}, "no name of a bridge or link"),
    ({"dpid": "0"}, "no switch"),
    ({"mtu": 500}, "MTU of 500"),
    ({"name": "a b"}, "is no name"),
    ({"locator": "fd00::/64"}, "locator needs"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(changed: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"name": "nve1", "controllers": (NVA,), "ipv4": "192.0.2.1"}
    with pytest.raises(InvalidInput, match=says):
        Edge(**{**given, **changed})


def test_names_make_datapath_ids() -> None:
    assert default_dpid("nve1") == default_dpid("nve1") != default_dpid("nve2")
    assert target("tcp:nva.example") == "tcp:nva.example:6653"


# --- what is found ----------------------------------------------------------------------------------------------------
GOOD = Found(
    "br-int",
    {
        "name": "br-int", "datapath_id": "0000000000000001", "datapath_type": "netdev", "fail_mode": "secure",
        "protocols": "OpenFlow13", "other_config": {"datapath-id": "1", "disable-in-band": "true"},
        "external_ids": {"vmm-underlay": "192.0.2.1", "vmm-mtu": "1500"},
    },
    {
        "br-int": Port("br-int", "internal", {}),
        "vxlan": Port("vxlan", "vxlan", TUNNEL_OPTIONS),
        "gre": Port("gre", "gre", {**TUNNEL_OPTIONS, "packet_type": "legacy_l3"}),
        "tap1": Port("tap1", "", {}),
    },
    [Controller(NVA, "out-of-band", BACKOFF, PROBE, True, 1000)],
    {"br-ext": "00000000000000ff"}, {}, {"tap1": Link(1450, TAP_QUEUE, True), "br-ext": Link(1500, 1000)},
    {"192.0.2.1": "br-ext"}, ("eth1",), 900.0,
)  # fmt: skip


def told(found: Found, **wanted: Any) -> list[str]:
    return [one.what for one in checking.findings(found, checking.Wanted(**wanted))]


def test_nothing_is_wrong_with_a_good_one() -> None:
    assert told(GOOD) == []
    assert told(GOOD, dpid="01", addresses=("192.0.2.1",), controllers=(NVA,), mtu=1500) == []


@pytest.mark.parametrize(("changes", "says"), [
    ({"bridge": None}, "there is no bridge br-int; there are br-ext"),
    ({"hidden": 7}, "7 hidden flows"),
    ({"foreign": ["table=0,priority=5 actions=NORMAL"]}, "past the NVA"),
    ({"others": {"br-ext": "0000000000000001"}}, "br-ext has the same datapath id"),
    ({"controllers": ()}, "no controller"),
    ({"started": 1100.0}, "ovs-vswitchd was started since"),
    ({"started": None}, "does not run"),
    ({"addresses": {}}, "no link of this host has"),
    ({"links": {"br-ext": Link(1400, 1000)}}, "MTU of 1400"),
    ({"links": {"tap1": Link(1450, 1000, True)}}, "holds 1000 frames"),
    ({"links": {"eth1": Link(1500, 1000, unchecked=True)}}, "leaves checksums undone"),
    ({"addresses": {"192.0.2.1": "eth0"}}, "on no bridge"),
    ({"ports": {"geneve0": Port("geneve0", "geneve", {})}}, "no tunnel port"),
    ({"ports": {"vxlan": Port("vxlan", "vxlan", {**TUNNEL_OPTIONS, "exts": "gbp"})}}, "options:exts=gbp"),
    ({"ports": {"vxlan": Port("vxlan", "vxlan", TUNNEL_OPTIONS, "no such device")}}, "no such device"),
    ({"ports": {"vxlan": Port("vxlan", "vxlan", TUNNEL_OPTIONS), "gre": Port("gre", "gre", TUNNEL_OPTIONS)}},
     "Ethernet headers"),
])  # fmt: skip
def test_each_slip_is_found(changes: dict[str, Any], says: str) -> None:
    assert any(says in one for one in told(dataclasses.replace(GOOD, **changes))), says


def test_what_was_asked_for_is_compared() -> None:
    assert told(GOOD, dpid="7") == ["datapath id is 0000000000000001, not 7"]
    assert told(GOOD, controllers=("tcp:192.0.2.11:6653",)) == ["the bridge is not controlled by tcp:192.0.2.11:6653"]


@pytest.mark.parametrize("text", ["2001:DB8::1", "2001:db8:0::1", "2001:db8::1/64"])
def test_an_underlay_address_is_the_same_however_it_was_written(text: str) -> None:
    assert Edge("nve1", (NVA,), ipv6=text).addresses == ["2001:db8::1"]
    assert Edge("nve1", (NVA,), ipv6="2001:DB8::1/64", uplink=Uplink("eth1")).ipv6 == "2001:db8::1/64"
    bridge = {**(GOOD.bridge or {}), "external_ids": {"vmm-underlay": text, "vmm-mtu": "1500"}}
    there = dataclasses.replace(GOOD, bridge=bridge, addresses={"2001:db8::1": "br-ext"})
    assert told(there) == told(there, addresses=(text,)) == []


def test_a_datapath_id_that_is_not_there_yet_is_not_to_be_written_down() -> None:
    bridge = {**(GOOD.bridge or {}), "datapath_id": None, "other_config": {"disable-in-band": "true"}}
    assert len(told(dataclasses.replace(GOOD, bridge=bridge, started=None))) == 1  # that ovs-vswitchd does not run


# --- the command ------------------------------------------------------------------------------------------------------
def test_setup_prints_commands_or_says_what_is_wrong_with_the_words() -> None:
    def run(line: str) -> Any:
        return CliRunner().invoke(vmm, ["nve", "setup", "nve1", *line.split()], catch_exceptions=False)

    shown = run("--ipv4 192.0.2.1 --controller tcp:192.0.2.10 --dpid 1")
    assert shown.exit_code == 0
    assert "vmm nve add nve1 --dpid 0000000000000001 --ipv4 192.0.2.1" in shown.output
    document = json.loads(run("--ipv4 192.0.2.1 --controller tcp:192.0.2.10 --json").stdout)
    assert document["commands"][-1]["command"].startswith("ovs-vsctl set controller br-int")
    assert run("--ipv4 192.0.2.1").exit_code == 2
    assert run("--controller tcp:192.0.2.10 --ipv4 1.2.3").exit_code == 6
    assert run("--ipv4 192.0.2.1 --controller tcp:192.0.2.10 --private-key k").exit_code == 2


@pytest.mark.parametrize("words", ["--dpid zz", "--dpid 0", "--address 1.2.3", "--address eth0", "--controller nva"])
def test_check_takes_no_words_that_mean_nothing(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryu_vmm.edge.reading.read", lambda host, bridge: GOOD)
    result = CliRunner().invoke(vmm, ["nve", "check", *words.split()], catch_exceptions=False)
    assert result.exit_code == 6, result.output


def test_what_mends_a_bridge_that_lacks_a_controller_names_the_rows_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryu_vmm.edge.reading.read", lambda host, bridge: GOOD)
    words = ["nve", "check", "--controller", NVA, "--controller", "tcp:192.0.2.11", "--json"]
    (found,) = json.loads(CliRunner().invoke(vmm, words, catch_exceptions=False).stdout)["findings"]
    rows, timers = found["mend"]
    assert rows == f"ovs-vsctl set-controller br-int {NVA} tcp:192.0.2.11:6653"
    assert timers.startswith("for row in $(ovs-vsctl get bridge br-int controller")  # "br-int" would name no single row


@pytest.mark.parametrize(("away", "code"), [(3, 0), (1000, 1)])
def test_a_controller_that_open_vswitch_has_not_written_down_yet_is_read_again(
    away: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the database says of a connection is up to 5 s old."""
    (controller,) = GOOD.controllers
    lost = dataclasses.replace(GOOD, controllers=[dataclasses.replace(controller, connected=False)])
    clock = iter(range(100_000))
    asked: list[Found] = []

    def read(host: Host, bridge: str) -> Found:
        asked.append(lost if len(asked) < away else GOOD)
        return asked[-1]

    monkeypatch.setattr("ryu_vmm.edge.reading.read", read)
    monkeypatch.setattr("ryu_vmm.cli.edges.time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _s: None))
    result = CliRunner().invoke(vmm, ["nve", "check"], catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert ("not connected" in result.output) is (code == 1)
    assert 1 < len(asked) < 10


def test_a_host_without_open_vswitch_is_a_sentence(tmp_path: Any) -> None:
    result = CliRunner().invoke(vmm, ["nve", "check", "--db", f"unix:{tmp_path}/db.sock"], catch_exceptions=False)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
