"""Log formats: one readable line per record on a terminal, one JSON object elsewhere."""

from __future__ import annotations

import logging
import logging.config
import sys
import time
from typing import Any

import msgspec

from nearfar.core.settings import LogFormat


class HumanLines(logging.Formatter):
    """``12:00:00 INFO  POST /v1/embeddings 200 4.1 ms …``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, followed by the traceback if there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname:<7} {_human(record)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


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
            entry["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def _human(record: logging.LogRecord) -> str:
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    if not fields:
        return record.getMessage()
    path = repr(fields.pop("path"))[1:-1]  # a client's line breaks must not start new log lines
    line = f"{fields.pop('method')} {path} {fields.pop('status')} {fields.pop('ms')} ms"
    return f"{line}  {' '.join(f'{name}={value}' for name, value in fields.items())}"


def log_config(log_format: LogFormat) -> dict[str, Any]:
    """Build the configuration for ``logging.config.dictConfig``; everything goes to standard error."""
    human = bool(sys.stderr and sys.stderr.isatty()) if log_format == "auto" else log_format == "human"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": HumanLines if human else JsonLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "nearfar": {"level": "INFO"},
            "_granian": {"level": "ERROR"},  # its start and stop lines repeat ours
        },
    }


def configure_logging(log_format: LogFormat) -> None:
    """Apply ``log_config``, and turn off record attributes that no format uses."""
    logging.config.dictConfig(log_config(log_format))
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
