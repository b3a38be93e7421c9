"""Log formats, and the handler that writes the lines of requests on a thread.

A record is one readable line on a terminal, and one JSON object elsewhere.
"""

from __future__ import annotations

import json
import logging
import logging.config
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TextIO

import msgspec

from nearfar.core.settings import LogFormat

_MAX_QUEUED_LINES = 10_000
_MAX_LINES_PER_WRITE = 500
_WRITE_EVERY_S = 0.02  # each time the thread wakes up, it competes with requests for the GIL
_CLOSE_S = 2.0
_DROPPED: dict[str, Any] = {
    "name": "nearfar.access",
    "levelno": logging.WARNING,
    "levelname": "WARNING",
    "msg": "the log's stream is too slow: the lines of %d requests were dropped",
}


# What starts a line or a command of a terminal: control characters, separators, marks of direction, surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTINUED = "\n    "  # a record has one line that starts with a time
_REQUEST = logging.LogRecord("nearfar.access", logging.INFO, "", 0, "request", (), None).__dict__


class RequestRecord(logging.LogRecord):
    """The record of a request. ``collect`` returns its fields; it is called when the record is formatted, and freed."""

    def __init__(self, collect: Callable[[], dict[str, object]]) -> None:
        now = time.time()
        # LogRecord's own __init__ takes longer than all other work for a record together.
        self.__dict__ = {**_REQUEST, "created": now, "msecs": now % 1 * 1000}
        self._collect: Callable[[], dict[str, object]] | None = collect
        self._fields: dict[str, object] = {}

    @property
    def fields(self) -> dict[str, object]:
        """Return what is logged about the request."""
        if collect := self._collect:
            self._fields = collect()
            self._collect = None
        return self._fields


class HumanLines(logging.Formatter):
    """``12:00:00 INFO  POST /v1/embeddings 200 4.1 ms …``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, followed by the traceback if there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        lines = [_human(record)]
        if record.exc_info:
            lines += (record.exc_text or self.formatException(record.exc_info)).split("\n")
        return f"{clock} {record.levelname:<7} {_CONTINUED.join(map(_escape, lines))}"


class JsonLines(logging.Formatter):
    """One JSON object per record, with the message and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, on one line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = record.exc_text or self.formatException(record.exc_info)
        try:
            line = msgspec.json.encode(entry).decode()
        except UnicodeEncodeError:  # a lone surrogate
            line = json.dumps(entry, default=str)
        return line if line.isprintable() else _UNSAFE.sub(_escaped, line)


class BackgroundStream(logging.StreamHandler[TextIO]):
    """Writes the lines of requests on a thread, many at once, and all other records as they come.

    A request doesn't wait for its line to be written. Where the stream is too slow, lines are dropped and counted.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._waiting: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or leave it to the thread."""
        if not isinstance(record, RequestRecord):
            super().emit(record)
        elif self._waiting.qsize() >= _MAX_QUEUED_LINES:
            self._dropped += 1
        else:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_waiting, name="log", daemon=True)
                self._thread.start()
            self._waiting.put(record)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        if self._thread:
            self._waiting.put(None)
            self._thread.join(_CLOSE_S)
            self._thread = None
        super().close()

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception:  # noqa: BLE001 — the thread has to go on
            self.handleError(record)
            return ""

    def _write_waiting(self) -> None:
        is_open = True
        while is_open:
            records = [self._waiting.get()]
            time.sleep(_WRITE_EVERY_S)
            records += [self._waiting.get() for _ in range(min(self._waiting.qsize(), _MAX_LINES_PER_WRITE))]
            is_open = None not in records  # ``close`` queues None
            lines = [line for record in records if record and (line := self._line(record))]
            dropped, self._dropped = self._dropped, 0
            if dropped:
                lines.append(self.format(logging.makeLogRecord(_DROPPED | {"args": (dropped,)})))
            with suppress(OSError, ValueError):  # the stream is closed
                self.stream.write("".join(f"{line}{self.terminator}" for line in lines))
                self.stream.flush()  # self.flush waits for the lock, which logging.shutdown has during close


def _human(record: logging.LogRecord) -> str:
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    if not fields:
        return record.getMessage()
    line = f"{fields.pop('method')} {fields.pop('path')} {fields.pop('status')} {fields.pop('ms')} ms"
    return f"{line}  {' '.join(f'{name}={value}' for name, value in fields.items())}"


def _escape(text: str) -> str:
    """Return the text on one line, without what a terminal would obey."""
    return text if text.isprintable() else _UNSAFE.sub(_escaped, text.replace("\n", r"\n"))


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def log_config(log_format: LogFormat) -> dict[str, Any]:
    """Build the configuration for ``logging.config.dictConfig``; everything goes to standard error."""
    human = bool(sys.stderr and sys.stderr.isatty()) if log_format == "auto" else log_format == "human"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": HumanLines if human else JsonLines}},
        "handlers": {"stderr": {"()": BackgroundStream, "formatter": "lines"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "nearfar": {"level": "INFO"},
            "_granian": {"level": "ERROR"},  # its start and stop lines repeat ours
        },
    }


def mask_keys(mask: Callable[[logging.LogRecord], bool]) -> None:
    """Filter all records but those of requests, which are masked field by field."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: isinstance(record, RequestRecord) or mask(record))


def configure_logging(log_format: LogFormat) -> None:
    """Apply ``log_config``, and turn off record attributes that no format uses."""
    logging.config.dictConfig(log_config(log_format))
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
