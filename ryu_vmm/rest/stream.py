"""The event stream: Server-Sent Events (WHATWG HTML, section 9.2) out of the runtime's event log.

An event's id is ``START.SEQ``: when this NVA started (milliseconds, hexadecimal) and the event's number since. A
client that reconnects sends the last id it saw and misses nothing that the log still holds; if it has missed
something, because it stayed away too long or the NVA was started anew, it is told so by an event ``gap``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from ..errors import InvalidInput
from . import views
from .contract import Call, Reply, Runtime
from .paging import listed
from .problems import Problem

__all__ = ["events"]

#: A comment is sent after so many seconds of silence, so that a dead connection is noticed.
HEARTBEAT = 15.0
#: Seconds after which a silent stream asks whether its credentials are still good.
RECHECK = 2.0
#: Each open stream costs a connection and a greenlet; nobody may have more than their share.
MAX_STREAMS, SHARE = 128, 32
#: Events read from the log at once.
BATCH = 200


def events(call: Call) -> Reply:
    """The stream, or with ``follow=0`` a list."""
    after = call.query.after or (call.headers.get("Last-Event-ID") or "").strip() or None
    seq, missed = _resume(call.runtime, after)
    if call.query.follow == "0":
        return _list(call, seq, missed)
    streams, who = call.shared.streams, call.principal
    most = MAX_STREAMS if who is None or who.via == "local" else SHARE
    if streams.total() >= MAX_STREAMS or (who is not None and streams[who.name] >= most):
        raise Problem(503, f"{most} event streams are open", headers={"Retry-After": "10"})
    if after is None:
        seq = call.runtime.log.last  # a stream that resumes nothing starts with what happens next
    stream = _stream(call, seq, missed)
    return Reply(stream=stream, headers={"X-Accel-Buffering": "no"})


def _list(call: Call, seq: int, missed: str | None) -> Reply:
    log, kind = call.runtime.log, call.query.kind or ""
    items: list[dict[str, Any]] = []
    if missed is not None:
        items.append(_gap_document(call.runtime, seq, missed))
    while len(items) <= call.query.limit:
        batch = log.since(seq, BATCH)
        if not batch:
            break
        items += [_view(call.runtime, entry) for entry in batch if _wanted(call, entry, kind)]
        seq = batch[-1][0]
    page = items[: call.query.limit]
    return listed(call, page, page[-1]["id"] if len(items) > len(page) else None)


def _wanted(call: Call, entry: Any, kind: str) -> bool:
    _, _, what, fields = entry
    return what.startswith(kind) and (call.scope.whole or call.scope.entry(fields))


def _start(runtime: Runtime) -> str:
    return f"{int(runtime.started * 1000):x}"


def _view(runtime: Runtime, entry: Any) -> dict[str, Any]:
    seq, at, kind, fields = entry
    return views.event(f"{_start(runtime)}.{seq}", at, kind, fields)


def _resume(runtime: Runtime, after: str | None) -> tuple[int, str | None]:
    """The seq to go on after, and why something may have been missed (None: nothing was)."""
    first = runtime.log.first
    if after is None:
        return first - 1, None
    found = re.fullmatch(r"([0-9a-f]{1,16})\.([0-9]{1,18})", after)
    if found is None:
        raise InvalidInput("not the id of an event", field="after")
    seq = int(found[2])
    if found[1] != _start(runtime) or seq > runtime.log.last:
        return first - 1, "the NVA was started anew"
    if seq < first - 1:
        return first - 1, f"{first - 1 - seq} events are no longer held"
    return seq, None


def _stream(call: Call, seq: int, missed: str | None) -> Iterator[bytes]:
    runtime, log, kind = call.runtime, call.runtime.log, call.query.kind or ""
    streams, who = call.shared.streams, call.principal
    name = "" if who is None else who.name
    streams[name] += 1
    try:
        # Something at once: the client learns that it is connected, and what to do when it no longer is.
        yield b"retry: 1000\n: connected\n\n"
        if missed is not None:
            yield _gap(runtime, seq, missed)
        said = time.monotonic()
        while who is not None and call.shared.access.holds(who):  # a stream outlives no credentials
            batch = log.since(seq, BATCH)
            if batch and batch[0][0] > seq + 1:
                lost = batch[0][0] - seq - 1
                yield _gap(runtime, batch[0][0] - 1, f"{lost} events came too fast")
            chunks = [_message(_view(runtime, entry)) for entry in batch if _wanted(call, entry, kind)]
            if chunks or time.monotonic() - said >= HEARTBEAT:
                yield b"".join(chunks) or b": nothing new\n\n"
                said = time.monotonic()
            if batch:
                seq = batch[-1][0]
            else:
                log.wait(seq, min(HEARTBEAT, RECHECK))
    finally:
        streams[name] -= 1
        if not streams[name]:
            del streams[name]


def _gap_document(runtime: Runtime, seq: int, why: str) -> dict[str, Any]:
    return views.event(f"{_start(runtime)}.{seq}", time.time(), "gap", {"why": why})


def _gap(runtime: Runtime, seq: int, why: str) -> bytes:
    return _message(_gap_document(runtime, seq, why))


def _message(document: dict[str, Any]) -> bytes:
    data = json.dumps(document, separators=(",", ":"))
    return f"id: {document['id']}\nevent: {document['kind']}\ndata: {data}\n\n".encode()
