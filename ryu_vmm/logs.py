"""Log lines, of ryu-manager and of ``vmm-agent``: time, level and module first; or a JSON object each."""

from __future__ import annotations

import json
import logging
import time

__all__ = ["Json", "Plain", "formatter"]


def _time(record: logging.LogRecord) -> str:
    """RFC 3339 in UTC with milliseconds, as REST has it."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class Plain(logging.Formatter):
    """``2026-01-02T03:04:05.678Z INFO ryu_vmm: message``, a traceback below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """When it was said."""
        return _time(record)


class Json(logging.Formatter):
    """An object on one line: ``time``, ``level``, ``module``, ``message``, and ``traceback`` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        document = {
            "time": _time(record), "level": record.levelname, "module": record.name, "message": record.getMessage(),
        }  # fmt: skip
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)


def formatter(as_json: bool) -> logging.Formatter:
    """What makes a log's lines."""
    return Json() if as_json else Plain()
