"""Open vSwitch as the judge of the codec: what we install is what it reports, for every field and action."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ryu_vmm.flows import (
    FIELDS,
    IN_PORT,
    TABLE,
    Action,
    CheckLarger,
    Copy,
    DecTtl,
    Flow,
    FlowChange,
    FlowStats,
    Match,
    Output,
    SetField,
    ToNva,
    match,
    set_field,
)
from ryu_vmm.tables import FLOOD, FLOOD_ACTIONS
from ryu_vmm.wire import base, openflow

pytestmark = pytest.mark.real

ARP, IP, IP6 = 0x0806, 0x0800, 0x86DD


class Switch:
    """One userspace bridge with daemons of its own, spoken to over its management socket."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.socket: socket.socket
        self.buffer = b""
        self.xid = 100

    def vsctl(self, *words: str) -> str:
        command = ["ovs-vsctl", f"--db=unix:{self.folder}/db.sock", "--timeout=20", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def start(self) -> None:
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        inside = ["ip", "netns", "exec", self.name]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        # The kernel's own neighbor discovery on the ports would be among the packets counted.
        subprocess.run([*inside, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"], check=True)
        database = self.folder / "conf.db"
        schema = "/usr/share/openvswitch/vswitch.ovsschema"
        subprocess.run(["ovsdb-tool", "create", str(database), schema], check=True)
        at = str(self.folder)
        environment = {**os.environ, "OVS_RUNDIR": at, "OVS_LOGDIR": at, "OVS_DBDIR": at}
        quiet = ["--detach", "-vconsole:off", "--log-file"]
        for command in (
            ["ovsdb-server", str(database), f"--remote=punix:{at}/db.sock", f"--pidfile={at}/ovsdb.pid"],
            ["ovs-vswitchd", f"unix:{at}/db.sock", f"--pidfile={at}/vsw.pid", "--disable-system"],
        ):
            subprocess.run([*inside, *command, *quiet], check=True, env=environment, timeout=30)
        bridge = ["add-br", "br-int", "--", "set", "br", "br-int", "datapath_type=netdev", "fail_mode=secure"]
        self.vsctl(*bridge, "protocols=OpenFlow13", "other-config:datapath-id=000000000000002a")
        self.add_port("p1", 1, "type=internal")
        self.add_port("p2", 2, "type=internal")
        flow = ["options:remote_ip=flow", "options:local_ip=flow", "options:key=flow"]
        self.add_port("vxlan", 3, "type=vxlan", *flow)
        for port in ("p1", "p2"):
            subprocess.run([*inside, "ip", "link", "set", port, "up"], check=True)
        self.connect()

    def add_port(self, name: str, number: int, *columns: str) -> None:
        port = ["add-port", "br-int", name, "--", "set", "int", name, f"ofport_request={number}"]
        self.vsctl(*port, *columns)

    def connect(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(self.folder / "br-int.mgmt"))
        self.socket.sendall(openflow.encode_hello(1))
        assert self.receive(base.HELLO)

    def stop(self) -> None:
        if hasattr(self, "socket"):
            self.socket.close()
        for daemon in ("vsw", "ovsdb"):
            pidfile = self.folder / f"{daemon}.pid"
            if pidfile.exists():
                pid = int(pidfile.read_text())
                os.kill(pid, 15)
                deadline = time.monotonic() + 10
                while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                    time.sleep(0.02)
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def receive(self, *kinds: int) -> bytes:
        """The next message of one of these types; echo requests are answered, errors fail the test."""
        while True:
            while len(self.buffer) < 8 or len(self.buffer) < openflow.decode_header(self.buffer).length:
                more = self.socket.recv(65536)
                assert more, "the switch has closed the connection"
                self.buffer += more
            header = openflow.decode_header(self.buffer)
            message, self.buffer = self.buffer[: header.length], self.buffer[header.length :]
            if header.type in kinds:
                return message
            if header.type == base.ECHO_REQUEST:
                self.socket.sendall(openflow.encode_echo_reply(header.xid, message[8:]))
            elif header.type == base.ERROR:
                raise AssertionError(openflow.decode_error(message))

    def send(self, message: bytes) -> None:
        self.socket.sendall(message)

    def change(self, *changes: FlowChange) -> None:
        """Carry the changes out and wait for the barrier."""
        self.xid += 1
        self.send(openflow.encode_flow_mods(changes, self.xid) + openflow.encode_barrier(self.xid))
        self.receive(base.BARRIER_REPLY)

    def add(self, *flows: Flow) -> None:
        self.change(*(FlowChange("add", flow) for flow in flows))

    def read(self, cookie: int = 0, mask: int = 0) -> list[FlowStats]:
        self.xid += 1
        self.send(openflow.encode_flow_stats_request(self.xid, cookie, mask))
        found: list[FlowStats] = []
        more = True
        while more:
            part, more = openflow.decode_flow_stats(self.receive(base.MULTIPART_REPLY))
            found += part
        return found

    def clear(self) -> None:
        flows = [stats.flow for stats in self.read()]
        self.change(*(FlowChange("delete", flow) for flow in flows))
        assert self.read() == []


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    assert shutil.which("ovs-vswitchd"), "Open vSwitch is not installed"
    switch = Switch(tmp_path_factory.mktemp("ovs"), f"wire-{os.getpid()}")
    try:
        switch.start()
        yield switch
    finally:
        switch.stop()


@pytest.fixture
def switch(running: Switch) -> Switch:
    running.clear()
    return running


MAC = bytes.fromhex("02aabbccddee")
V4 = bytes([10, 0, 0, 1])
V6 = bytes.fromhex("20010db8000000000000000000000001")
ND: dict[str, int | bytes] = {"eth_type": IP6, "ip_proto": 58}

#: A match for each field with what OpenFlow asks to be matched along with it.
PLAUSIBLE: dict[str, Match] = {
    "in_port": match(in_port=1),
    "metadata": match(metadata=0x1122334455667788),
    "reg0": match(reg0=0x11223344),
    "reg1": match(reg1=1),
    "eth_dst": match(eth_dst=MAC),
    "eth_src": match(eth_src=MAC),
    "eth_type": match(eth_type=0x88B5),
    "vlan_vid": match(vlan_vid=0),
    "ip_proto": match(eth_type=IP, ip_proto=17),
    "ip_frag": match(eth_type=IP6, ip_proto=58, ip_frag=(1, 1)),
    "ip_ttl": match(eth_type=IP, ip_ttl=1),
    "ipv4_src": match(eth_type=IP, ipv4_src=V4),
    "ipv4_dst": match(eth_type=IP, ipv4_dst=V4),
    "icmpv4_type": match(eth_type=IP, ip_proto=1, icmpv4_type=5),
    "udp_src": match(eth_type=IP, ip_proto=17, udp_src=53),
    "udp_dst": match(eth_type=IP6, ip_proto=17, udp_dst=4789),
    "arp_op": match(eth_type=ARP, arp_op=1),
    "arp_spa": match(eth_type=ARP, arp_spa=V4),
    "arp_tpa": match(eth_type=ARP, arp_tpa=V4),
    "arp_sha": match(eth_type=ARP, arp_sha=MAC),
    "arp_tha": match(eth_type=ARP, arp_tha=MAC),
    "ipv6_src": match(eth_type=IP6, ipv6_src=V6),
    "ipv6_dst": match(eth_type=IP6, ipv6_dst=V6),
    "icmpv6_type": match(**ND, icmpv6_type=135),
    "icmpv6_code": match(**ND, icmpv6_type=135, icmpv6_code=0),
    "nd_target": match(**ND, icmpv6_type=135, icmpv6_code=0, nd_target=V6),
    "nd_reserved": match(**ND, icmpv6_type=136, icmpv6_code=0, nd_reserved=0xE0000000),
    "nd_options_type": match(**ND, icmpv6_type=136, icmpv6_code=0, nd_options_type=2),
    "nd_sll": match(**ND, icmpv6_type=135, icmpv6_code=0, nd_sll=MAC),
    "nd_tll": match(**ND, icmpv6_type=136, icmpv6_code=0, nd_tll=MAC),
    "tun_id": match(tun_id=0xFFF001),
    "tun_ipv4_src": match(tun_ipv4_src=V4),
    "tun_ipv4_dst": match(tun_ipv4_dst=V4),
    "tun_ipv6_src": match(tun_ipv6_src=V6),
    "tun_ipv6_dst": match(tun_ipv6_dst=V6),
}
MULTICAST = (1 << 40, 1 << 40)
MASKED: dict[str, Match] = {
    "group bit": match(eth_dst=MULTICAST),
    "bit of a register": match(reg0=(1, 1)),
    "hop limit": match(eth_type=IP6, ip_ttl=255, ipv6_dst=V6),
    "metadata half": match(metadata=(7, 0xFFFFFFFF)),
    "prefix4": match(eth_type=IP, ipv4_dst=(0x0A000000, 0xFF000000)),
    "prefix6": match(eth_type=IP6, ipv6_dst=(0x20010DB8 << 96, 0xFFFFFFFFFFFFFFFF << 64)),
    "solicited": match(eth_type=IP6, ipv6_dst=(1, 0xFFFFFF)),
    "arp prefix": match(eth_type=ARP, arp_tpa=(0x0A000000, 0xFFFFFF00)),
    "arp any sha but one bit": match(eth_type=ARP, arp_sha=MULTICAST),
    "nd prefix": match(**ND, icmpv6_type=135, icmpv6_code=0, nd_target=(V6[:8] + bytes(8), b"\xff" * 8 + bytes(8))),
    "vni range": match(tun_id=(0xFFF000, 0xFFFFFFFFFFFFF000)),
    "any vlan": match(vlan_vid=(0x1000, 0x1000)),
    "everything": (),
    "tunnel": match(in_port=3, tun_id=100, tun_ipv4_src=V4, tun_ipv4_dst=V4, eth_dst=MAC),
    "tunnel6": match(in_port=3, tun_id=100, tun_ipv6_src=V6, tun_ipv6_dst=V6, metadata=5),
    "admit": match(in_port=1, metadata=5, eth_src=MAC, eth_type=ARP, arp_op=2, arp_spa=V4, arp_sha=MAC),
}


def test_every_field_has_a_plausible_match() -> None:
    assert {name for name, given in PLAUSIBLE.items() if name in {item[0] for item in given}} == set(FIELDS)


@pytest.mark.parametrize("given", [*PLAUSIBLE.values(), *MASKED.values()], ids=[*PLAUSIBLE, *MASKED])
def test_match_comes_back_equal(switch: Switch, given: Match) -> None:
    flow = Flow(3, 7, given, (Output(2),), cookie=0xC0FFEE)
    switch.add(flow)
    assert [stats.flow for stats in switch.read()] == [flow]
    switch.change(FlowChange("delete", flow))
    assert switch.read() == []


#: Fields OpenFlow lets an action write, as the pipeline would, with the match they need.
SETTABLE = {
    "eth_dst": (MAC, ()),
    "eth_src": (MAC, ()),
    "metadata": (bytes(7) + b"\7", ()),
    "reg0": (bytes(3) + b"\7", ()),
    "reg1": (bytes(3) + b"\7", ()),
    "ip_ttl": (b"\x40", match(eth_type=IP6)),
    "ipv4_src": (V4, match(eth_type=IP)),
    "ipv4_dst": (V4, match(eth_type=IP)),
    "ipv6_src": (V6, match(eth_type=IP6)),
    "ipv6_dst": (V6, match(eth_type=IP6)),
    "udp_dst": (b"\x12\xb5", match(eth_type=IP, ip_proto=17)),
    "arp_op": (b"\0\2", match(eth_type=ARP)),
    "arp_spa": (V4, match(eth_type=ARP)),
    "arp_tpa": (V4, match(eth_type=ARP)),
    "arp_sha": (MAC, match(eth_type=ARP)),
    "arp_tha": (MAC, match(eth_type=ARP)),
    "nd_target": (V6, match(**ND, icmpv6_type=135, icmpv6_code=0)),
    "nd_reserved": (b"\xe0\0\0\0", match(**ND, icmpv6_type=136, icmpv6_code=0)),
    "nd_options_type": (b"\2", match(**ND, icmpv6_type=136, icmpv6_code=0)),
    "tun_id": (bytes(5) + b"\xff\xf0\x01", ()),
    "tun_ipv4_src": (V4, ()),
    "tun_ipv4_dst": (V4, ()),
    "tun_ipv6_src": (V6, ()),
    "tun_ipv6_dst": (V6, ()),
}


@pytest.mark.parametrize("field", SETTABLE)
def test_set_field_comes_back_equal(switch: Switch, field: str) -> None:
    value, given = SETTABLE[field]
    flow = Flow(0, 7, given, (SetField(field, value), Output(3)))
    switch.add(flow)
    assert [stats.flow for stats in switch.read()] == [flow]


ENCAP = (set_field("tun_id", 100), SetField("tun_ipv4_src", V4), SetField("tun_ipv4_dst", V4))
WHOLE = {
    "drop": Flow(0, 0, ()),
    "goto": Flow(0, 1, (), goto=1),
    "metadata": Flow(0, 1, (), goto=9, write_metadata=0xFFFFFFFFFFFFFFFF),
    "metadata alone": Flow(0, 1, (), write_metadata=1),
    "all of it": Flow(
        0, 0xFFFF, match(in_port=1), (*ENCAP, Output(3), ToNva(0xFFFF)), 200, 5, 0xFFFFFFFFFFFFFFFF, 0xFFFF
    ),
    "back out": Flow(5, 9, match(in_port=3), (*ENCAP, Output(IN_PORT))),
    "sample": Flow(5, 9, match(in_port=3), (ToNva(128),)),
    "replicate": Flow(
        6,
        9,
        (),
        (Output(1), Output(2), *ENCAP, Output(3), SetField("tun_ipv4_dst", bytes([10, 0, 0, 9])), Output(3)),
    ),
    "idle": Flow(1, 1, (), (Output(1),), idle_timeout=30),
    "routed": Flow(
        30,
        9,
        match(eth_type=IP, tun_id=100, ipv4_dst=V4),
        (SetField("eth_src", MAC), SetField("eth_dst", MAC), set_field("tun_id", 200), DecTtl()),
        40,
    ),
    "measured": Flow(30, 9, match(eth_type=IP6), (CheckLarger(0xFFFF), DecTtl(), Output(2)), 31),
    "ARP turned round": Flow(
        20,
        9,
        match(eth_type=ARP, arp_op=1, arp_tpa=(0x0A000000, 0xFF000000)),
        (
            *(Copy("arp_sha", "eth_dst"), Copy("arp_sha", "arp_tha"), Copy("arp_tpa", "reg1")),
            *(Copy("arp_spa", "arp_tpa"), Copy("reg1", "arp_spa"), Output(IN_PORT)),
        ),
    ),
    "solicitation taken in": Flow(
        20,
        9,
        match(**ND, icmpv6_type=135, icmpv6_code=0, nd_target=V6),
        (Copy("nd_sll", "eth_dst"), set_field("icmpv6_type", 136)),
        25,
    ),
    "advertisement made": Flow(
        25,
        9,
        match(**ND, icmpv6_type=136, icmpv6_code=0),
        (
            *(Copy("eth_src", "nd_tll"), Copy("ipv6_src", "ipv6_dst"), Copy("nd_target", "ipv6_src")),
            *(set_field("nd_options_type", 2), set_field("nd_reserved", 0x60000000), Output(IN_PORT)),
        ),
    ),
    "resubmitted": Flow(1, 1, (), (SetField("eth_dst", MAC), Output(2)), goto=2),
}


@pytest.mark.parametrize("flow", WHOLE.values(), ids=WHOLE)
def test_flow_comes_back_equal(switch: Switch, flow: Flow) -> None:
    switch.add(flow)
    assert [stats.flow for stats in switch.read()] == [flow]
    switch.change(FlowChange("delete", flow))
    assert switch.read() == []


def test_reading_selects_by_cookie(switch: Switch) -> None:
    ours = [Flow(0, n, (), cookie=0xAB << 56 | n) for n in range(5)]
    switch.add(*ours, Flow(1, 1, (), cookie=0xAC << 56))
    found = switch.read(0xAB << 56, 0xFF << 56)
    assert sorted(stats.flow for stats in found) == ours


def test_many_flows_come_in_parts(switch: Switch) -> None:
    flows = {Flow(2, 5, match(eth_type=IP, ipv4_dst=n), (Output(2),), cookie=n) for n in range(3000)}
    switch.add(*flows)
    assert {stats.flow for stats in switch.read()} == flows


FRAME = MAC + MAC + b"\x88\xb5" + bytes(range(200))


def test_replacing_a_flow_keeps_its_counters(switch: Switch) -> None:
    """What openflow.encode_flow_mods says about ``add`` over an equal key."""
    flow = Flow(0, 5, match(in_port=1, eth_type=0x88B5), (Output(2),))
    switch.add(flow)
    for _ in range(4):
        switch.send(openflow.encode_packet_out(1, (Output(TABLE),), FRAME))
    deadline = time.monotonic() + 10
    while (before := switch.read()[0]).packets != 4 or before.age < 1.5:  # read later than it takes afterwards
        assert time.monotonic() < deadline
        time.sleep(0.05)
    switch.add(flow._replace(actions=(), cookie=9))
    after = switch.read()[0]
    assert after.flow == flow._replace(actions=(), cookie=9)
    assert (after.packets, after.bytes) == (4, 4 * len(FRAME))
    assert after.age < before.age


def test_packet_in_from_a_port_comes_whole(switch: Switch) -> None:
    switch.send(openflow.encode_set_config(1))
    switch.add(Flow(0, 5, (), goto=4, write_metadata=0x77), Flow(4, 5, (), (ToNva(0xFFFF),), cookie=42))
    switch.send(openflow.encode_packet_out(1, (Output(TABLE),), FRAME))
    found = openflow.decode_packet_in(switch.receive(base.PACKET_IN))
    assert found == openflow.PacketIn(1, 4, 42, 1, None, None, FRAME, 0x77)


def test_packet_in_with_a_tunnel_key_set_by_a_flow(switch: Switch) -> None:
    switch.send(openflow.encode_set_config(1))
    switch.add(Flow(0, 5, (), (set_field("tun_id", 100),), 1), Flow(1, 5, (), (ToNva(0xFFFF),), cookie=42))
    switch.send(openflow.encode_packet_out(1, (Output(TABLE),), FRAME))
    found = openflow.decode_packet_in(switch.receive(base.PACKET_IN))
    assert found == openflow.PacketIn(1, 1, 42, 1, 100, None, FRAME)


@pytest.mark.parametrize("version", [4, 6])
def test_packet_in_from_a_tunnel_names_the_sender(switch: Switch, version: int) -> None:
    """Setting the tunnel fields in a flow stands in for a packet that has come in on a tunnel."""
    sender = V4 if version == 4 else V6
    marks = (set_field("tun_id", 100), SetField(f"tun_ipv{version}_src", sender))
    marks += (SetField(f"tun_ipv{version}_dst", sender),)
    switch.send(openflow.encode_set_config(1))
    for metadata in (0, 0xFFFFFFFF00000001):
        switch.add(Flow(0, 5, (), marks, 1, metadata), Flow(1, 5, (), (ToNva(0xFFFF),), cookie=42))
        switch.send(openflow.encode_packet_out(1, (Output(TABLE),), FRAME))
        found = openflow.decode_packet_in(switch.receive(base.PACKET_IN))
        assert found == openflow.PacketIn(1, 1, 42, 1, 100, sender, FRAME, metadata)


def test_packet_in_comes_whole_whatever_was_asked_for(switch: Switch) -> None:
    """Open vSwitch buffers nothing, so it ignores max_len: sampling costs whole packets on the channel."""
    switch.send(openflow.encode_set_config(1))
    switch.add(Flow(0, 5, (), (ToNva(64),)))
    switch.send(openflow.encode_packet_out(1, (Output(TABLE),), FRAME))
    found = openflow.decode_packet_in(switch.receive(base.PACKET_IN))
    assert found.frame == FRAME


def test_idle_flow_reports_its_end(switch: Switch) -> None:
    flow = Flow(3, 5, match(in_port=1, eth_type=IP, ipv4_dst=V4), (Output(2),), cookie=7, idle_timeout=1)
    switch.send(openflow.encode_set_config(1) + openflow.encode_set_async(2))
    switch.add(flow)
    removed = openflow.decode_flow_removed(switch.receive(base.FLOW_REMOVED))
    assert removed.flow == flow._replace(actions=())
    assert removed.reason == base.REMOVED_IDLE
    assert removed.packets == 0


def test_errors_name_the_batch(switch: Switch) -> None:
    bad = Flow(0, 5, match(arp_op=1), (Output(2),))  # lacks eth_type
    switch.send(openflow.encode_flow_mods([FlowChange("add", bad)], 4711) + openflow.encode_barrier(4712))
    error = openflow.decode_error(switch.receive(base.ERROR))
    assert (error.type, error.code, error.xid, error.failed_xid) == (4, 9, 4711, 4711)
    switch.receive(base.BARRIER_REPLY)


def test_ports(switch: Switch) -> None:
    switch.send(openflow.encode_port_desc_request(5))
    ports = {port.name: port for port in openflow.decode_port_desc(switch.receive(base.MULTIPART_REPLY))}
    assert {name: ports[name].number for name in ("p1", "p2", "vxlan", "br-int")} == {
        "p1": 1,
        "p2": 2,
        "vxlan": 3,
        "br-int": base.PORT_LOCAL,
    }
    assert ports["p1"].up
    assert not ports["br-int"].up


def test_port_changes(switch: Switch) -> None:
    switch.add_port("p9", 9, "type=internal")

    def change() -> tuple[int, openflow.PortDesc]:
        """The next change of this port; those of others are of before."""
        while True:
            reason, port = openflow.decode_port_status(switch.receive(base.PORT_STATUS))
            if port.name == "p9":
                return reason, port

    reason, port = change()
    assert (reason, port.number) == (base.PORT_ADD, 9)
    subprocess.run(["ip", "netns", "exec", switch.name, "ip", "link", "set", "p9", "up"], check=True)
    while reason != base.PORT_MODIFY or not port.up:
        reason, port = change()
    switch.vsctl("del-port", "br-int", "p9")
    while reason != base.PORT_DELETE:
        reason, port = change()


@pytest.mark.parametrize("family", [4, 6])
def test_the_longest_part_of_a_flood_is_taken(switch: Switch, family: int) -> None:
    """What is divided at tables.FLOOD_ACTIONS; 1,700 copies over IPv6 are more than a message holds."""
    copies: list[Action] = []
    for n in range(FLOOD_ACTIONS // 2):
        copies += [set_field(f"tun_ipv{family}_dst", n + 1), Output(3)]
    flows = [Flow(FLOOD + n, 100, match(tun_id=100), tuple(copies), FLOOD + n + 1) for n in range(3)]
    switch.add(*flows)
    assert sorted(stats.flow for stats in switch.read()) == sorted(flows)


def test_a_full_table_refuses_by_transaction_id_and_takes_what_is_there_already(switch: Switch) -> None:
    """By that one flow is known, and all others are in force (quarantine.py)."""
    switch.vsctl("--", "--id=@t", "create", "Flow_Table", "flow_limit=2", "overflow_policy=refuse",
                 "--", "set", "bridge", "br-int", "flow_tables:40=@t")  # fmt: skip
    try:
        flows = [Flow(40, n, match(tun_id=n), (Output(2),)) for n in range(1, 6)]
        switch.xid += 100
        changes = [FlowChange("add", flow) for flow in flows]
        switch.send(openflow.encode_flow_mods(changes, switch.xid) + openflow.encode_barrier(switch.xid + 50))
        refused = [openflow.decode_error(switch.receive(base.ERROR)) for _ in range(3)]
        switch.receive(base.BARRIER_REPLY)
        assert [(error.type, error.code, error.xid - switch.xid) for error in refused] == [(5, 1, n) for n in (2, 3, 4)]
        again = flows[0]._replace(actions=(Output(1),))
        switch.add(again)
        switch.change(FlowChange("delete", flows[1]))
        switch.add(flows[2])
        assert sorted(stats.flow for stats in switch.read()) == sorted([again, flows[2]])
    finally:
        switch.vsctl("clear", "bridge", "br-int", "flow_tables")
