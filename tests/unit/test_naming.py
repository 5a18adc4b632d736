"""The publisher against a name server that the test plays: what is sent, when, and that the newest value wins."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from ryu_vmm import naming
from ryu_vmm.dnsupdate import Rejected, Server, Unanswered
from ryu_vmm.events import NameFailed, NamePublished
from ryu_vmm.naming import Publisher

FIRST, SECOND = Server("192.0.2.1"), Server("192.0.2.2")
DEADLINE = 10.0


def ip(n: int) -> tuple[bytes, ...]:
    return (bytes([10, 0, 0, n]),)


class Servers:
    """Name servers that answer as the test says, and remember what they were sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sent: list[tuple[Server, str, dict[str, tuple[bytes, ...]]]] = []
        self.holds: dict[str, tuple[bytes, ...]] = {}
        self.under_way: dict[str, int] = {}
        self.answer: Callable[[Server, Mapping[str, Sequence[bytes]]], None] = lambda server, names: None

    def send(self, server: Server, zone: str, names: Mapping[str, Sequence[bytes]]) -> None:
        values = {name: tuple(value) for name, value in names.items()}
        with self.lock:
            self.sent.append((server, zone, values))
            for name in values:
                self.under_way[name] = self.under_way.get(name, 0) + 1
                assert self.under_way[name] == 1, "two updates of one name at a time"
        try:
            self.answer(server, values)
            self.holds |= values
        finally:
            with self.lock:
                for name in values:
                    self.under_way[name] -= 1


class Bench:
    """A publisher that runs, and the events it has told."""

    def __init__(self, servers: Servers, publisher: Publisher) -> None:
        self.servers, self.publisher = servers, publisher
        self.events: list[NamePublished | NameFailed] = []
        publisher.tell = self.events.append
        self.thread = threading.Thread(target=publisher.run)

    def start(self) -> None:
        self.thread.start()
        self.until(lambda: self.publisher._started, "running")

    def until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, f"{what}: {self.events} {self.servers.sent}"
            time.sleep(0.001)

    def published(self, name: str, value: tuple[bytes, ...]) -> None:
        self.until(lambda: NamePublished(name, value) in self.events, f"{name} published as {value}")

    def quiet(self) -> bool:
        """Whether nothing is under way, and nothing will be."""
        return not self.publisher._names

    def failures(self, name: str) -> list[NameFailed]:
        return [e for e in self.events if isinstance(e, NameFailed) and e.name == name]


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "FIRST", 0.02)
    monkeypatch.setattr(naming, "LAST", 0.2)


@pytest.fixture
def bench() -> Iterator[Bench]:
    servers = Servers()
    made = Bench(servers, Publisher(servers, (FIRST, SECOND), ("example.org", "example.com")))
    made.start()
    yield made
    made.publisher.stop()
    made.thread.join(DEADLINE)
    assert not made.thread.is_alive()


def waits(gate: threading.Event) -> Callable[[Server, Mapping[str, Sequence[bytes]]], None]:
    """A server that answers once the gate is open."""

    def answer(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        gate.wait(DEADLINE)

    return answer


def test_a_name_is_published_once(bench: Bench) -> None:
    bench.publisher.publish("web.example.org", ip(1))
    bench.published("web.example.org", ip(1))
    assert bench.servers.sent == [(FIRST, "example.org", {"web.example.org": ip(1)})]
    bench.until(lambda: not bench.publisher._names, "forgotten")


def test_a_name_in_no_zone_is_refused_and_never_sent(bench: Bench) -> None:
    bench.publisher.publish("web.example.net", ip(1))
    bench.until(lambda: bench.events, "an answer")
    [event] = bench.failures("web.example.net")
    assert event.retry is None and "zones are example.org, example.com" in event.why
    assert not bench.servers.sent and not bench.publisher._names


def test_without_servers_every_name_is_refused() -> None:
    bench = Bench(Servers(), Publisher(None, (), ()))
    bench.publisher.publish("web.example.org", ip(1))
    bench.start()
    bench.until(lambda: bench.events, "an answer")
    assert bench.events == [NameFailed("web.example.org", ip(1), "not ours to publish: dns_servers is not set", None)]
    bench.publisher.stop()
    bench.thread.join(DEADLINE)


def test_names_that_wait_travel_together_within_limits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "LANES", 1)
    monkeypatch.setattr(naming, "NAMES", 10)
    go = threading.Event()
    bench.servers.answer = waits(go)
    bench.publisher.publish("first.example.org", ip(1))
    bench.until(lambda: bench.servers.sent, "the first one on its way")
    for n in range(25):
        bench.publisher.publish(f"n{n}.example.org", ip(n))
    bench.publisher.publish("other.example.com", ip(1))
    bench.until(lambda: len(bench.servers.sent) == 2, "the other zone does not wait")
    assert bench.servers.sent[1][1] == "example.com"
    go.set()
    for n in range(25):
        bench.published(f"n{n}.example.org", ip(n))
    assert sorted(len(names) for _, _, names in bench.servers.sent) == [1, 1, 5, 10, 10]


def test_an_update_holds_so_many_addresses_at_most(bench: Bench) -> None:
    many = tuple(bytes([10, 1, n >> 8, n & 255]) for n in range(400))
    big = [f"n{n}.example.org" for n in range(5)]
    gate = threading.Event()
    bench.servers.answer = waits(gate)
    for n in range(naming.LANES):
        bench.publisher.publish(f"lane{n}.example.org", ip(n))
        bench.until(lambda n=n: len(bench.servers.sent) == n + 1, "a lane taken")  # type: ignore[misc]
    for name in big:
        bench.publisher.publish(name, many)
    gate.set()
    for name in big:
        bench.published(name, many)
    assert max(sum(map(len, names.values())) for _, _, names in bench.servers.sent) <= naming.ADDRESSES


def test_the_next_server_is_tried_and_one_that_is_silent_comes_last(bench: Bench) -> None:
    def answer(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        if server == FIRST:
            raise Unanswered("timeout: no answer within 2 s", sent=False)

    bench.servers.answer = answer
    bench.publisher.publish("web.example.org", ip(1))
    bench.published("web.example.org", ip(1))
    bench.publisher.publish("mail.example.org", ip(2))
    bench.published("mail.example.org", ip(2))
    assert [server for server, _, _ in bench.servers.sent] == [FIRST, SECOND, SECOND]
    assert not bench.failures("web.example.org")


def test_what_every_server_said_is_told_and_pauses_grow(bench: Bench) -> None:
    def answer(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        if server == FIRST:
            raise Rejected("NOTAUTH: it is not in charge of zone example.org")
        raise Unanswered("connection refused", sent=False)

    bench.servers.answer = answer
    bench.publisher.publish("web.example.org", ip(1))
    bench.until(lambda: len(bench.failures("web.example.org")) == 6, "six failures")
    failures = bench.failures("web.example.org")
    assert failures[0].why == (
        "192.0.2.1:53: NOTAUTH: it is not in charge of zone example.org; 192.0.2.2:53: connection refused"
    )
    pauses = [failure.retry for failure in failures]
    assert all(pause is not None for pause in pauses)
    assert pauses[1] > 1.5 * pauses[0] and pauses[2] > 1.5 * pauses[1]  # type: ignore[operator]
    assert max(pauses) <= 1.1 * naming.LAST  # type: ignore[type-var, operator]
    bench.servers.answer = lambda server, names: None
    bench.published("web.example.org", ip(1))


def test_one_bad_name_does_not_keep_others_from_being_published(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "LANES", 1)
    gate = threading.Event()

    def answer(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        gate.wait(DEADLINE)
        if "bad.example.org" in names:
            raise Rejected("REFUSED", by_name=True)

    bench.servers.answer = answer
    bench.publisher.publish("first.example.org", ip(0))
    bench.until(lambda: bench.servers.sent, "the first one on its way")
    good = [f"n{n}.example.org" for n in range(20)]
    for name in [*good[:7], "bad.example.org", *good[7:]]:
        bench.publisher.publish(name, ip(1))
    gate.set()
    for name in good:
        bench.published(name, ip(1))
    assert not any(bench.failures(name) for name in good)
    bench.until(lambda: bench.failures("bad.example.org"), "the bad one told")


def test_a_silent_server_is_not_asked_for_every_name_apart(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "LANES", 1)
    gate = threading.Event()

    def answer(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        gate.wait(DEADLINE)
        if server == FIRST:
            raise Unanswered("timeout", sent=False)
        if "bad.example.org" in names:
            raise Rejected("REFUSED", by_name=True)

    bench.servers.answer = answer
    monkeypatch.setattr(naming, "SUSPECT", 0.0)  # it is asked first again each time
    monkeypatch.setattr(naming, "FIRST", 60.0)
    monkeypatch.setattr(naming, "LAST", 60.0)
    bench.publisher.publish("first.example.org", ip(0))
    bench.until(lambda: bench.servers.sent, "the first one on its way")
    together = {f"{name}.example.org" for name in ("a", "b", "c", "bad")}
    for name in together:
        bench.publisher.publish(name, ip(1))
    gate.set()
    bench.until(lambda: bench.failures("bad.example.org"), "the bad one told")
    asked = [set(names) for server, _, names in bench.servers.sent if server == FIRST]
    assert asked == [{"first.example.org"}, together]


def test_a_name_of_its_own_does_not_wait_for_another_ones_time_out(bench: Bench) -> None:
    gate = threading.Event()

    def answer(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        if "slow.example.org" in names:
            gate.wait(DEADLINE)

    bench.servers.answer = answer
    bench.publisher.publish("slow.example.org", ip(1))
    bench.until(lambda: bench.servers.sent, "on its way")
    bench.publisher.publish("quick.example.org", ip(2))
    bench.published("quick.example.org", ip(2))
    assert NamePublished("slow.example.org", ip(1)) not in bench.events
    gate.set()
    bench.published("slow.example.org", ip(1))


def test_once_a_server_is_heard_again_all_that_waited_for_one_goes_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "FIRST", 30.0)
    monkeypatch.setattr(naming, "LAST", 30.0)

    def dead(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        raise Unanswered("connection refused", sent=False)

    bench.servers.answer = dead
    for n in range(3):
        bench.publisher.publish(f"n{n}.example.org", ip(n))
        bench.until(lambda n=n: bench.failures(f"n{n}.example.org"), "a failure")  # type: ignore[misc]
    waiting = {f"n{n}.example.org" for n in range(3)}  # which they are once their failures have been told
    bench.until(lambda: waiting <= bench.publisher._silent["example.org"], "all of them waiting")
    bench.servers.answer = lambda server, names: None
    bench.publisher.publish("new.example.org", ip(9))
    for n in range(3):
        bench.published(f"n{n}.example.org", ip(n))


def test_the_newest_value_is_what_is_sent_after_a_failure(bench: Bench) -> None:
    gate = threading.Event()

    def answer(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        if names["web.example.org"] == ip(1):
            gate.wait(DEADLINE)
            raise Unanswered("timeout", sent=True)

    bench.servers.answer = answer
    bench.publisher.publish("web.example.org", ip(1))
    bench.until(lambda: bench.servers.sent, "on its way")
    bench.publisher.publish("web.example.org", ip(2))
    bench.publisher.publish("web.example.org", ip(3))
    gate.set()
    bench.published("web.example.org", ip(3))
    values = [names["web.example.org"] for _, _, names in bench.servers.sent]
    assert values[:2] == [ip(1), ip(3)]  # the second server is already sent the newest
    assert NamePublished("web.example.org", ip(2)) not in bench.events


def test_a_value_that_one_server_may_carry_out_late_is_remembered_beyond_its_confirmation_by_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "AGAIN", 0.02)
    monkeypatch.setattr(naming, "FUDGE", 60.0)

    def answer(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        if server == FIRST:
            raise Unanswered("timeout", sent=True)

    bench.servers.answer = answer
    bench.publisher.publish("web.example.org", ip(1))
    bench.published("web.example.org", ip(1))
    time.sleep(0.1)
    assert [server for server, _, _ in bench.servers.sent] == [FIRST, SECOND], "said again without need"
    bench.publisher.publish("web.example.org", ip(2))
    bench.published("web.example.org", ip(2))
    bench.servers.holds["web.example.org"] = ip(1)  # the first server gets to it, and tells the other
    bench.until(lambda: bench.servers.holds["web.example.org"] == ip(2), "said again")


def test_nothing_of_a_newer_value_is_told_before_all_of_an_older_one(bench: Bench) -> None:
    gate, telling = threading.Event(), threading.Event()

    def tell(event: NamePublished | NameFailed) -> None:
        if event == NamePublished("web.example.org", ip(1)):
            telling.set()
            gate.wait(DEADLINE)
        bench.events.append(event)

    bench.publisher.tell = tell
    bench.publisher.publish("web.example.org", ip(1))
    bench.until(telling.is_set, "the first value on its way to be told")
    bench.publisher.publish("web.example.org", ip(2))
    bench.publisher.publish("mail.example.org", ip(3))
    bench.published("mail.example.org", ip(3))
    gate.set()
    bench.published("web.example.org", ip(2))
    ours = [event for event in bench.events if event.name == "web.example.org"]
    assert ours == [NamePublished("web.example.org", ip(1)), NamePublished("web.example.org", ip(2))]


def test_after_the_end_nothing_is_told(bench: Bench) -> None:
    gate = threading.Event()
    bench.servers.answer = waits(gate)
    bench.publisher.publish("web.example.org", ip(1))
    bench.until(lambda: bench.servers.sent, "on its way")
    bench.publisher.stop()
    gate.set()
    bench.until(lambda: not bench.publisher._running.total(), "the update's end")
    assert not bench.events


def overtaken(bench: Bench) -> None:
    """The second value of a name is published after a request with the first one has not been answered.

    Somebody has answered, though: what failed without that is tried again as soon as a server is heard.
    """
    sent = threading.Event()

    def answer(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        if names.get("web.example.org") == ip(1):
            sent.set()
            raise Unanswered("timeout", sent=True) if server == FIRST else Rejected("SERVFAIL")

    bench.servers.answer = answer
    bench.publisher.publish("web.example.org", ip(1))
    bench.until(sent.is_set, "sent")
    bench.publisher.publish("web.example.org", ip(2))
    bench.published("web.example.org", ip(2))


def test_a_value_that_an_unanswered_older_one_may_overtake_is_said_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "AGAIN", 0.02)
    monkeypatch.setattr(naming, "FUDGE", 60.0)
    overtaken(bench)
    bench.servers.holds["web.example.org"] = ip(1)  # the server gets to what nobody waits for any more
    bench.until(lambda: bench.servers.holds["web.example.org"] == ip(2), "said again")


def test_a_value_that_can_no_longer_be_overtaken_is_not_said_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "AGAIN", 0.02)
    monkeypatch.setattr(naming, "FUDGE", 0.5)
    overtaken(bench)
    bench.until(bench.quiet, "the end of that")
    assert 1 <= sum(names.get("web.example.org") == ip(2) for _, _, names in bench.servers.sent) < 12


def test_what_was_wanted_before_the_start_is_said_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "AGAIN", 0.02)
    servers = Servers()
    bench = Bench(servers, Publisher(servers, (FIRST,), ("example.org",)))
    bench.publisher.publish("web.example.org", ip(1))
    bench.start()
    bench.until(lambda: len(servers.sent) >= 2, "said twice")
    bench.publisher.stop()
    bench.thread.join(DEADLINE)


def test_an_error_of_ours_is_logged_and_tried_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    broken = [RuntimeError("oops")]

    def answer(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        if broken:
            raise broken.pop()

    bench.servers.answer = answer
    with caplog.at_level(logging.ERROR, "ryu_vmm.names"):
        bench.publisher.publish("web.example.org", ip(1))
        bench.published("web.example.org", ip(1))
    assert "oops" in caplog.text
    assert "an error of ours" in bench.failures("web.example.org")[0].why


@pytest.mark.parametrize("seed", range(8))
def test_whatever_servers_do_the_last_value_wins_in_the_end(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "FIRST", 0.002)
    monkeypatch.setattr(naming, "LAST", 0.01)
    monkeypatch.setattr(naming, "AGAIN", 0.005)
    monkeypatch.setattr(naming, "FUDGE", 0.5)
    chance = random.Random(seed)
    servers = Servers()
    limbo: list[tuple[float, float, dict[str, tuple[bytes, ...]]]] = []  # when, when at the latest, what
    bad = [True]

    def answer(server: Server, names: Mapping[str, Sequence[bytes]]) -> None:
        with servers.lock:
            for given_up in list(limbo):
                at, latest, late = given_up
                if at < (now := time.monotonic()):
                    limbo.remove(given_up)
                    if now < latest:  # long before FUDGE is over, as a stall of ours may follow
                        servers.holds |= late  # a request that was given up is carried out
        fate = chance.random() if bad[0] else 1.0
        time.sleep(0.002 * chance.random())
        if fate < 0.3:
            now = time.monotonic()
            limbo.append((now + 0.1 * chance.random(), now + 0.15, dict(names)))  # type: ignore[arg-type]
            raise Unanswered("timeout", sent=True)
        if fate < 0.5:
            raise Rejected("REFUSED", by_name=True)
        if fate < 0.6:
            raise Rejected("SERVFAIL")

    servers.answer = answer
    bench = Bench(servers, Publisher(servers, (FIRST, SECOND), ("example.org",)))
    bench.start()
    last: dict[str, tuple[bytes, ...]] = {}
    for _ in range(150):
        name = f"n{chance.randrange(6)}.example.org"
        last[name] = ip(chance.randrange(1, 250)) if chance.random() < 0.8 else ()
        bench.publisher.publish(name, last[name])
        time.sleep(0.001)
    bad[0] = False

    bench.until(bench.quiet, "the end")
    assert servers.holds == last
    bench.publisher.stop()
    bench.thread.join(DEADLINE)
