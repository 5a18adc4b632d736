"""Everything that makes something of bytes from a switch, a client or a file: what takes them, and what may come out.

``TARGETS`` is read by test_fuzz_bytes.py, which tries some inputs at every run, and by tools/fuzz, which goes on for as
long as it is told to. A target is made anew now and then, so that what one input leaves behind meets the next one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from decoders_layer3 import ANSWERS, SAMPLES, routing_core, routing_core_seeds
from town import Town, tap
from world import TUNNEL, ip, mac

from ryu_vmm import addresses, credentials, inventory
from ryu_vmm import events as ev
from ryu_vmm.audit import AuditTrail
from ryu_vmm.config import OPTIONS
from ryu_vmm.effects import Record
from ryu_vmm.emulation.session import Session
from ryu_vmm.emulation.switch import Switch
from ryu_vmm.errors import DecodeError, InvalidInput, StoreUnavailable, VmmError
from ryu_vmm.events import PortInfo
from ryu_vmm.flows import CheckLarger, DecTtl, Flow, FlowChange, FlowStats, Output, PortCounts, SetField, ToNva, match
from ryu_vmm.store import _ADAPTERS
from ryu_vmm.tables import Why, cookie
from ryu_vmm.wire import agent, base, frames, meters, openflow, oxm, ports

Take = Callable[[bytes], object]
FLOW = Flow(
    10,
    100,
    match(in_port=1, eth_type=0x0800, ipv4_dst=(0x0A000000, 0xFF000000), tun_id=100),
    (SetField("tun_ipv4_dst", bytes([192, 168, 100, 2])), Output(3), CheckLarger(1514), DecTtl(), ToNva(0xFFFF)),
    goto=40,
    write_metadata=5,
    idle_timeout=30,
)


class Target(NamedTuple):
    """A decoder: what is tried first, who takes it, and the errors that are its documented answers."""

    name: str
    make: Callable[[], Take]
    seeds: tuple[bytes, ...]
    allowed: tuple[type[BaseException], ...] = ()


def plain(take: Take) -> Callable[[], Take]:
    """For what keeps nothing from one input to the next."""
    return lambda: take


# --- OpenFlow ---------------------------------------------------------------------------------------------------------
def multipart(kind: int, body: bytes) -> bytes:
    """A multipart reply."""
    return base.message(base.MULTIPART_REPLY, 1, kind.to_bytes(2, "big") + bytes(6) + body)


METER = (5).to_bytes(4, "big") + (56).to_bytes(2, "big") + bytes(6) + bytes(44)
MESSAGES: dict[str, tuple[Callable[[bytes], object], tuple[bytes, ...]]] = {
    "packet-in": (
        openflow.decode_packet_in,
        (
            agent.encode_packet_in(1, b"x" * 60, tun_id=9),
            agent.encode_packet_in(1, b"x" * 60, tun_id=5, tun_src=b"abcd", tun_dst=b"efgh", metadata=9),
            agent.encode_packet_in(1, b"x" * 60, tun_id=5, tun_src=b"a" * 16, tun_dst=b"b" * 16),
        ),
    ),
    "flow statistics": (openflow.decode_flow_stats, (agent.encode_flow_stats_reply(1, [FlowStats(FLOW, 1, 2, 3.0)]),)),
    "flow removed": (openflow.decode_flow_removed, (agent.encode_flow_removed(FLOW),)),
    "error": (openflow.decode_error, (agent.encode_error(1, 4, 9, bytes(64)),)),
    "port status": (openflow.decode_port_status, (agent.encode_port_status(0, PortInfo(1, "tap-vm1", True)),)),
    "port description": (openflow.decode_port_desc, (agent.encode_port_desc_reply(1, [PortInfo(1, "tap", True)] * 2),)),
    "multipart header": (openflow.decode_multipart, (multipart(1, b""),)),
    "meter statistics": (meters.decode_meter_stats, (multipart(base.MP_METER, METER * 2),)),
    "meter configuration": (
        meters.decode_meter_config,
        (multipart(base.MP_METER_CONFIG, bytes.fromhex("0018000f00000005000100100000000900000009") + bytes(4)),),
    ),
    "meter features": (meters.decode_meter_features, (multipart(base.MP_METER_FEATURES, bytes(16)),)),
    "port statistics": (ports.decode_port_stats, (agent.encode_port_stats_reply(1, {1: PortCounts(1, 2, 3, None)}),)),
    "port statistics request": (ports.decode_port_stats_request, (ports.encode_port_stats_request(1, 7),)),
    "flow mod": (agent.decode_flow_mod, (openflow.encode_flow_mods([FlowChange("add", FLOW)], 1),)),
    "packet-out": (agent.decode_packet_out, (openflow.encode_packet_out(1, FLOW.actions, b"x" * 60),)),
    "statistics request": (agent.decode_flow_stats_request, (openflow.encode_flow_stats_request(1),)),
    "role request": (agent.decode_role_request, (base.message(base.ROLE_REQUEST, 1, bytes(16)),)),
}


def framed(decode: Take) -> Take:
    """As it comes, and with a header that fits: what is behind it is looked at, too."""

    def take(data: bytes) -> object:
        try:
            decode(data)
        except DecodeError:
            if len(data) < 8:
                raise
        return decode(b"\4" + data[1:2] + min(len(data), 0xFFFF).to_bytes(2, "big") + data[4:0xFFFF])

    return take


def oxm_of(data: bytes) -> frozenset[str]:
    """Matches, instructions and actions."""
    return each(data, oxm.decode_instructions, oxm.decode_actions, lambda raw: oxm.decode_match(raw, 0, len(raw)))


def each(data: Any, *takers: Callable[[Any], object]) -> frozenset[str]:
    """What several say to the same input, and in which lines those that refuse it do."""
    said: set[str] = set()
    for n, take in enumerate(takers):
        try:
            take(data)
            said.add(f"{n} takes it")
        except (DecodeError, InvalidInput, ValueError) as error:
            if not isinstance(error, VmmError) and takers != OPTION_TYPES:  # these alone say it by ValueError
                raise
            lines, at = [], error.__traceback__
            while at is not None:
                lines.append(str(at.tb_lineno))
                at = at.tb_next
            said.add(f"{n} refuses it {'.'.join(lines[-2:])}")
    return frozenset(said)


def emulated() -> Take:
    """What an emulated switch makes of a controller's bytes, in pieces."""
    session = Session(Switch(1))

    def take(data: bytes) -> None:
        session.closing, session._rest = False, b""
        for at in range(0, len(data), 37):
            session.receive(data[at : at + 37], 1.0)
        session.out.clear()

    return take


# --- the core and the runtime -----------------------------------------------------------------------------------------
def frames_of(data: bytes) -> frozenset[str]:
    """What a guest's frame is, and says."""
    return each(data, frames.classify, frames.parse_arp, frames.parse_rarp, frames.parse_nd, frames.parse_probe)


def guest_frames() -> tuple[bytes, ...]:
    """What guests and hypervisors send."""
    return (
        frames.build_garp(mac(1), ip("10.0.0.1")),
        frames.build_arp_request(mac(1), ip("10.0.0.1"), ip("10.0.0.2")),
        frames.build_rarp_request(mac(1)),
        frames.build_unsolicited_na(mac(1), ip("2001:db8::1")),
        frames.build_ns(mac(1), ip("2001:db8::1"), ip("2001:db8::2")),
        frames.build_probe(bytes(16), 100),
        b"\x02" * 6 + mac(1) + b"\x81\0\0\5\x08\x06" + bytes(28),
    )


def core() -> Take:
    """Packet-ins of any content, for any reason, while a move is open. The first six bytes choose reason and port."""
    town = Town()
    town.plug("n1", tap(1))
    town.handle(ev.MoveRequested("vm1", "n1"))
    reasons = list(Why)

    def take(data: bytes) -> frozenset[str]:
        head = data[:6].ljust(6, b"\0")
        about = int.from_bytes(head[2:5], "big")
        given = cookie(reasons[head[0] % len(reasons)], about)
        port = head[1] % 16
        town.now += 0.001
        source = ip("192.168.100.3") if head[5] & 1 else None
        town.nva.counters.clear()
        town.handle(ev.PacketSeen(1 + head[5] % 4, port or TUNNEL, given, data[6:], source))
        town.out.clear()
        said = frozenset({*town.nva.counters, *(kind for kind, _ in town.reports)})
        town.reports.clear()
        return said

    return take


def southbound() -> Take:
    """What a connected switch's datapath makes of bytes, with an answer to everything outstanding."""
    from datapaths import connected

    datapath = connected()

    def take(data: bytes) -> frozenset[str]:
        datapath.again()
        datapath.board.counters.clear()
        position, wanted = datapath.take_in(data)
        assert 0 <= position <= len(data) and 8 <= wanted <= 0xFFFF
        return frozenset({*datapath.board.counters, f"wants {wanted.bit_length()}"})

    return take


# --- REST -------------------------------------------------------------------------------------------------------------
def request(head: str, body: Any = b"") -> bytes:
    """An HTTP request as bytes; a body that is no bytes is JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    length = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n" if content else ""
    return f"{head}\r\nHost: nva\r\n{length}\r\n".encode("latin-1") + content


def rest_requests() -> tuple[bytes, ...]:
    """One of each kind."""
    from rest_lab import NVES, vm

    http = "HTTP/1.1"
    return (
        request(f"POST /v1/nves {http}", NVES[0]),
        request(f"PUT /v1/networks/red {http}", {"vni": 5, "policy": {"mtu": 1400, "distribution": "pull"}}),
        request(f"POST /v1/vms {http}", vm(5, "nve2", attachments=[{"nve": "nve3", "port": "x"}])),
        request(f"POST /v1/vms {http}", [vm(6), vm(7)]),
        request(f"POST /v1/moves {http}", {"vm": "vm1", "to": "nve2", "kind": "hot", "ports": {"eth0": "x"}}),
        request(f"POST /v1/inventory {http}", {"nves": [NVES[0]], "networks": [], "vms": [vm(5)]}),
        request(f"GET /v1/directory?network=blue&mac=02:00:00:00:00:01&ip=10.0.0.1&limit=2 {http}"),
        request(f"GET /v1/events?follow=0&after=0.1 {http}\r\nLast-Event-ID: 19bc.12\r\nAccept: text/event-stream"),
        request(f"GET /v1/moves?state=open&after=3 {http}\r\nAccept: application/json;q=0.5, */*;q=0"),
        request(f"GET /v1/vms/vm1/explain {http}\r\nAuthorization: Bearer vmm_abc_def"),
        request(f"POST /v1/evacuations {http}", {"nve": "nve1", "parallel": 2}),
        request(f"DELETE /v1/vms/vm1 {http}"),
        request(f"GET /v1/metrics {http}"),
    )


def rest() -> Take:
    """Any request to the whole application: it is answered, by a document that says what is wrong with it."""
    from rest_lab import NVES, vm

    from ryu_vmm.rest import make_app

    runtime = _runtime()
    whole = {"nves": NVES, "networks": [{"name": "blue", "vni": 100}], "vms": [vm(n, f"nve{n}") for n in (1, 2)]}
    inventory.apply(runtime, inventory.parse(json.dumps(whole)))
    app = make_app(runtime, audit=AuditTrail(":memory:"))

    def take(data: bytes) -> frozenset[str] | None:
        environ = environ_of(data)
        if environ is None:
            return None
        said: list[Any] = []
        answer = app(environ, lambda status, headers, *_: said.extend((status, dict(headers))))
        status, headers = said
        code = int(status[:3])
        assert code < 500 or (headers["Content-Type"] == "application/problem+json" and code == 503), status
        if headers.get("Content-Type") == "text/event-stream":
            getattr(answer, "close", lambda: None)()
            return frozenset({"stream"})
        content = b"".join(answer)
        if code < 400 or not content:
            return frozenset({environ["REQUEST_METHOD"], status})
        problem = json.loads(content)
        assert problem["status"] == code
        wrong = [f"{error['field']} {error['why'][:20]}" for error in problem.get("errors", ())]
        return frozenset({problem["code"], problem["detail"][:20], *wrong[:2]})

    return take


def _runtime() -> Any:
    from live import LiveRuntime

    runtime = LiveRuntime()
    for n in (1, 2, 3):
        runtime.mute.add(f"nve{n}")
    return runtime


def environ_of(data: bytes) -> dict[str, Any] | None:
    """What a WSGI server makes of a request; None: it would not get beyond the server."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[1].startswith("/") or not words[0].isascii() or not words[0].isalpha():
        return None
    from urllib.parse import unquote_to_bytes

    path, _, query = words[1].partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": words[0].upper(),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "nva",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
    }
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.replace("-", "").isalnum():
            return None
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value.strip()
    return environ


# --- files and text ---------------------------------------------------------------------------------------------------
def inventories(data: bytes) -> frozenset[str]:
    """Inventory files, in both languages."""
    return each(data.decode("utf-8", "replace"), from_yaml, lambda text: inventory.parse(text, "f", yaml_syntax=False))


def from_yaml(text: str) -> None:
    """As text, and with tags."""
    inventory.parse(text, "f")


def texts(data: bytes) -> frozenset[str]:
    """Addresses of every kind."""
    parse = (addresses.parse_mac, addresses.parse_ipv4, addresses.parse_ipv6, addresses.parse_ip, addresses.parse_dpid)
    return each(data.decode("utf-8", "replace"), *parse)


OPTION_TYPES = tuple(option.type for option in OPTIONS)


def options(data: bytes) -> frozenset[str]:
    """Values of every option of the configuration."""
    return each(data.decode("utf-8", "replace"), *OPTION_TYPES)


def records() -> tuple[Take, tuple[bytes, ...]]:
    """What is read from the store, which nobody but us writes: whatever has become of it."""
    town = Town()
    town.handle(ev.MoveRequested("vm1", "n1"))
    seeds = tuple(
        table.encode() + b" " + _ADAPTERS[table].dump_json((value,))
        for table, value in {r.table: r.value for r in _all(town)}.items()
    )

    def take(data: bytes) -> None:
        table, _, text = data.partition(b" ")
        adapter = _ADAPTERS.get(table.decode("utf-8", "replace"))
        if adapter is not None:
            adapter.validate_json(text)

    return take, seeds


def _all(town: Town) -> Iterable[Record]:
    return [Record(table, key, value) for table, key, value in town.store.load()]


def targets() -> dict[str, Target]:
    """All of them, by name."""
    from pydantic import ValidationError
    from responses import cli, documents

    listed = [Target(name, plain(framed(take)), seeds, (DecodeError,)) for name, (take, seeds) in MESSAGES.items()]
    stream = tuple(seed for _, seeds in MESSAGES.values() for seed in seeds)
    instructions = oxm.encode_instructions(FLOW.actions, FLOW.goto, FLOW.write_metadata)
    match_ = oxm.encode_match(FLOW.match)
    record, rows = records()
    token = {"id": "0a1b2c3d", "hash": f"scrypt:16384:8:1:{'A' * 22}==:{'A' * 43}="}
    principal = {"name": "ops", "role": "admin", "tokens": [token], "certificates": ["CN:ops"]}
    principals = json.dumps({"principals": [principal]}).encode()
    packets = tuple(bytes([why, 10, 0, 0, 1, why]) + frame for why in range(len(Why)) for frame in guest_frames())
    inventory_files = (json.dumps({"nves": [], "vms": []}).encode(), b"nves:\n- {name: a}\nvms: &x []\nnetworks: *x\n")
    listed += [
        Target("matches and instructions", plain(oxm_of), (instructions, match_, instructions[8:])),
        Target("connection (southbound)", southbound, (*stream, b"".join(stream)), (DecodeError,)),
        Target("connection (emulated switch)", emulated, (*stream, b"".join(stream))),
        Target("guests' frames", plain(frames_of), guest_frames()),
        Target("routers' answers", plain(lambda data: each(data, *ANSWERS)), SAMPLES),
        Target("routed packet-ins in the core", routing_core, routing_core_seeds()),
        Target("packet-ins in the core", core, packets),
        Target("REST requests", rest, rest_requests()),
        Target("inventory files", plain(inventories), inventory_files),
        Target("credentials files", plain(lambda data: credentials.parse(data, "fuzz")), (principals,), (VmmError,)),
        Target("addresses", plain(texts), (b"02:00:00:00:00:01", b"10.0.0.1", b"fe80::1", b"00000000000000ff")),
        Target("options", plain(options), (b"1.5", b"12", b"true", b"/tmp/x")),
        Target("answers to the command line", cli, documents(), ()),
        Target("records of the store", plain(record), rows, (ValidationError, StoreUnavailable)),
    ]
    return {target.name: target for target in listed}
