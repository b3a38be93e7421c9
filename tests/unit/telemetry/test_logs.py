from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
from contextlib import nullcontext

import pytest

from nearfar.telemetry.logs import BackgroundStream, HumanLines, JsonLines, RequestRecord

FIELDS = {"request_id": "req_1", "method": "GET", "path": "/a\nFAKE line", "status": 200, "ms": 1.5, "rows": 2}


def _request(**fields: object) -> RequestRecord:
    return RequestRecord(lambda: fields)


def test_a_request_is_one_line_for_people_whatever_its_path() -> None:
    line = HumanLines().format(_request(**FIELDS))

    assert line.endswith(r"INFO    GET /a\nFAKE line 200 1.5 ms  request_id=req_1 rows=2")
    assert 1 == len(line.splitlines())


def test_a_request_is_one_object_elsewhere() -> None:
    entry = json.loads(JsonLines().format(_request(**FIELDS)))

    assert FIELDS.items() <= entry.items()
    assert ("info", "nearfar.access", "request") == (entry["level"], entry["logger"], entry["message"])


def test_a_traceback_stays_within_its_record() -> None:
    try:
        raise ValueError("an inner detail")  # noqa: TRY301 — a traceback is wanted
    except ValueError:
        record = logging.LogRecord("nearfar", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())

    assert "an inner detail" in json.loads(JsonLines().format(record))["traceback"]
    assert "an inner detail" in HumanLines().format(record)


FORGED = "\n12:00:00 INFO    forged"
UNSAFE = [
    FORGED,
    "\r",
    "\x1b[31m",
    "\x9b31m",
    "\u2028",
    "\u2029",
    "\x85",
    "\x0b",
    "\x0c",
    "\0",
    "\x7f",
    "\ud800",
    "\u202e",
]


@pytest.mark.parametrize("text", UNSAFE)
@pytest.mark.parametrize("place", ["message", "path", "method", "field", "traceback"])
@pytest.mark.parametrize("formatter", [HumanLines(), JsonLines()])
def test_no_text_starts_a_line_or_controls_a_terminal(formatter: logging.Formatter, place: str, text: str) -> None:
    record = logging.LogRecord("nearfar", logging.ERROR, "", 1, f"a{text}b", (), None)
    if place == "traceback":
        record.exc_info = (ValueError, ValueError(f"a{text}b"), None)
    elif place != "message":
        record = _request(**FIELDS | {"path": "/", place: f"a{text}b"})

    line = formatter.format(record)

    starts = [part for part in line.splitlines() if not part.startswith("    ")]
    assert 1 == len(starts)
    assert line.replace("\n", "").isprintable()
    if isinstance(formatter, JsonLines):
        assert text in str(json.loads(line)) or repr(text)[1:-1] in str(json.loads(line))


class SlowStream(io.StringIO):
    """Blocks each write until the test sets ``gate``."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def write(self, text: str) -> int:
        self.gate.wait()
        return super().write(text)


def test_requests_wait_for_no_stream_and_what_is_dropped_is_counted() -> None:
    stream = SlowStream()
    handler = BackgroundStream(stream)
    handler.setFormatter(JsonLines())
    sent = 12_000

    for number in range(sent):
        handler.emit(_request(rows=number))
    stream.gate.set()
    handler.close()

    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    counts = re.findall(r"the lines of (\d+) requests were dropped", " ".join(entry["message"] for entry in entries))
    rows = [entry["rows"] for entry in entries if "rows" in entry]
    assert rows == sorted(rows)
    assert sent - len(rows) == sum(map(int, counts))
    assert 10_000 <= len(rows) < sent


def test_a_line_that_cannot_be_formatted_does_not_end_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> dict[str, object]:
        raise KeyError("fields")

    stream = io.StringIO()
    handler = BackgroundStream(stream)
    handler.setFormatter(JsonLines())

    handler.emit(RequestRecord(fail))
    handler.emit(_request(rows=1))
    handler.close()

    assert 1 == json.loads(stream.getvalue())["rows"]
    assert "KeyError" in capsys.readouterr().err


def test_other_records_are_written_at_once() -> None:
    stream = io.StringIO()
    handler = BackgroundStream(stream)

    handler.emit(logging.LogRecord("nearfar", logging.ERROR, __file__, 1, "can't start", (), None))

    assert "can't start\n" == stream.getvalue()


def test_the_thread_ends_although_the_lock_is_taken() -> None:
    handler = BackgroundStream(io.StringIO())
    handler.emit(_request(**FIELDS))
    thread = handler._thread

    with handler.lock or nullcontext():  # as logging.shutdown does
        handler.close()
        assert thread
        thread.join(30)
        assert not thread.is_alive()


def test_the_fields_of_a_request_are_collected_once() -> None:
    """What they are collected from, the request's scope, is freed then: the last requests are kept for long."""
    collected = []

    def collect() -> dict[str, object]:
        collected.append(1)
        return {"status": 200}

    record = RequestRecord(collect)

    assert [{"status": 200}] * 2 == [record.fields, record.fields]
    assert [1] == collected
    assert collect not in vars(record).values()
