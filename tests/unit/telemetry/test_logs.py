from __future__ import annotations

import json
import logging
import sys

from nearfar.telemetry.logs import HumanLines, JsonLines

FIELDS = {"request_id": "req_1", "method": "GET", "path": "/a\nFAKE line", "status": 200, "ms": 1.5, "rows": 2}


def _record(**extra: object) -> logging.LogRecord:
    record = logging.LogRecord("nearfar.access", logging.INFO, __file__, 1, "request", (), None)
    record.__dict__.update(extra)
    return record


def test_a_request_is_one_line_for_people_whatever_its_path() -> None:
    line = HumanLines().format(_record(fields=FIELDS))

    assert line.endswith(r"INFO    GET /a\nFAKE line 200 1.5 ms  request_id=req_1 rows=2")
    assert 1 == len(line.splitlines())


def test_a_request_is_one_object_elsewhere() -> None:
    entry = json.loads(JsonLines().format(_record(fields=FIELDS)))

    assert FIELDS.items() <= entry.items()
    assert ("info", "nearfar.access", "request") == (entry["level"], entry["logger"], entry["message"])


def test_a_traceback_stays_within_its_record() -> None:
    try:
        raise ValueError("an inner detail")  # noqa: TRY301 — a traceback is wanted
    except ValueError:
        record = _record(exc_info=sys.exc_info())

    assert "an inner detail" in json.loads(JsonLines().format(record))["traceback"]
    assert "an inner detail" in HumanLines().format(record)
