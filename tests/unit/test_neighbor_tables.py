"""Whatever happens, no guest holds an old answer to be right for long: neighbor tables that are told, and ask once."""

from __future__ import annotations

import contextlib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import World, ip, mac

from ryu_vmm import events as ev
from ryu_vmm.announcing import PAUSES
from ryu_vmm.errors import VmmError
from ryu_vmm.model import Interface, Kind, Place
from ryu_vmm.resolution import answering
from ryu_vmm.wire import frames

NVES, CLIENTS = ("n1", "n2", "n3"), (8, 9)
#: Of these each VM has one of each family, or none; the last two are shared.
IPS = [ip(text) for text in ("10.0.0.101", "10.0.0.102", "2001:db8::101", "fe80::101", "10.0.0.100", "2001:db8::100")]
SHARED = tuple(IPS[-2:])
HISTORY = st.one_of(
    st.tuples(
        st.just("register"), st.integers(1, 3), st.integers(1, 3), st.sets(st.sampled_from(IPS[:-2])), st.booleans()
    ),
    st.tuples(st.just("withdraw"), st.integers(1, 3)),
    st.tuples(st.just("take"), st.integers(1, 3), st.sampled_from(SHARED)),
    st.tuples(st.just("away"), st.sampled_from(NVES)),
    st.tuples(st.just("back"), st.sampled_from(NVES)),
    st.tuples(st.just("move"), st.sampled_from((1, 2, 3, 9)), st.sampled_from(NVES)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("wait"), st.sampled_from((0.5, 2.0, 30.0))),
    st.tuples(st.just("ask")),
)  # fmt: skip


class Street(World):
    """VMs 8 and 9 on n1 and n3 keep neighbor tables; VMs 1 to 3 come, go and change."""

    def __init__(self) -> None:
        super().__init__(3)
        self.network()
        self.tables: dict[int, dict[bytes, bytes]] = {n: {} for n in CLIENTS}
        self._read = 0
        for n, nve in zip(CLIENTS, ("n1", "n3"), strict=True):
            self.vm(n, nve)
        for n in (1, 2, 3):
            self.boxes[f"n{n}"].number(f"tap-vm{n}")
            self.plug(f"n{n}", f"tap-vm{n}")

    def happen(self, action: tuple) -> None:  # type: ignore[type-arg]
        match action:
            case ("register", n, link, own, shares):
                interface = Interface(
                    f"vm{n}/eth0", f"vm{n}", "eth0", 100, mac(10 * n + link),
                    tuple(sorted(a for a in own if len(a) == 4)), tuple(sorted(a for a in own if len(a) == 16)),
                    Place(f"n{n}", f"tap-vm{n}"), shared=SHARED * shares,
                )  # fmt: skip
                self.handle(ev.VmSubmitted(f"vm{n}", (interface,)))
            case ("withdraw", n):
                self.handle(ev.VmWithdrawn(f"vm{n}"))
            case ("take", n, address):
                interface = self.nva.state.interfaces.get(f"vm{n}/eth0")
                if interface is not None and interface.location.port in self.boxes[interface.location.nve].ports:
                    build = frames.build_garp if len(address) == 4 else frames.build_unsolicited_na
                    self.send(*interface.location, build(interface.mac, address))
            case ("away", nve):
                self.disconnect(nve)
            case ("back", nve) if not self.boxes[nve].connected:
                self.connect(nve)
            case ("move", n, to):
                move = self.move(f"vm{n}", to, Kind.HOT)
                self.advance(0.5)
                self.plug(to, f"tap-vm{n}")
                self.handle(ev.ActivationReported(move.id))
            case ("restart",):
                self.kill()
                self.start()
            case ("wait", seconds):
                self.advance(seconds, step=0.5)
            case ("ask",):
                self.ask()

    def ask(self) -> None:
        """Clients ask for what they do not know."""
        for n in CLIENTS:
            place = self.nva.state.interfaces[f"vm{n}/eth0"].location
            for address in IPS:
                if address not in self.tables[n] and self.boxes[place.nve].connected:
                    src = ip(f"10.0.0.{n}") if len(address) == 4 else ip(f"2001:db8::{n}")
                    build = frames.build_arp_request if len(address) == 4 else frames.build_ns
                    before = len(self.out)
                    self.send(*place, build(mac(n), src, address))
                    for _, port, frame in self.out[before:]:
                        if port == place.port and frame[:6] == mac(n):
                            self.tables[n][address] = frame[6:12]
        self.read()

    def read(self) -> None:
        """Announcements renew what is in a table; as kernels do, no one makes an entry."""
        for _, port, frame in self.out[self._read :]:
            kind, told = frames.classify(frame), None
            if kind is frames.Kind.GARP:
                told = (frames.parse_arp(frame).spa, frames.parse_arp(frame).sha)
            elif kind is frames.Kind.NA_UNSOLICITED:
                nd = frames.parse_nd(frame)
                told = (nd.target, nd.lladdr or nd.eth_src)
            for n in CLIENTS:
                if told is not None and port == f"tap-vm{n}" and told[0] in self.tables[n]:
                    self.tables[n][told[0]] = told[1]
        self._read = len(self.out)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(HISTORY, max_size=25))
def test_no_guest_holds_an_old_answer_to_be_right(history: list[tuple]) -> None:  # type: ignore[type-arg]
    w = Street()
    for action in history:
        with contextlib.suppress(VmmError):
            w.happen(action)
        w.read()
    for name in NVES:
        if not w.boxes[name].connected:
            w.connect(name)
    w.advance(2 * sum(PAUSES) + 1, step=0.5)
    w.read()
    for n in CLIENTS:
        for address, known in w.tables[n].items():
            assert answering(w.nva.state, 100, address) in (None, known), (n, address.hex())
    assert w.differences() == []


def test_the_history_of_an_address_that_many_have_had() -> None:
    w = Street()
    for action in (
        ("register", 1, 1, {IPS[0]}, True), ("take", 1, SHARED[0]), ("ask",), ("away", "n3"), ("withdraw", 1),
        ("restart",), ("away", "n3"), ("register", 2, 1, {IPS[0]}, True), ("take", 2, SHARED[0]), ("wait", 30.0),
        ("back", "n3"),
    ):  # fmt: skip
        w.happen(action)
    w.read()
    assert w.tables[9] == {IPS[0]: mac(21), SHARED[0]: mac(21)}
    assert w.tables[8] == w.tables[9]


