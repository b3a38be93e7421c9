"""Fixtures are compared strictly: what is missing, unexpected or of another type is reported with its place."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import replay
from comparing import differences, shape_differences

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1}, {"a": 1.0}, "$.a is 1.0, expected 1"),
        ({"a": 1}, {"a": True}, "$.a is True, expected 1"),
        ({"a": 1}, {}, "$.a is missing"),
        ({}, {"a": 1}, "$.a is unexpected"),
        ([1], [1, 2], "expected a list of 1"),
        ([1], {"a": 1}, "expected a list of 1"),
        ({"a": 1}, [1], "expected an object"),
        ("<string>", "x", None),
        ("<string>", 1, "expected '<string>'"),
        ("<int>", True, "expected '<int>'"),
        ("<has cat>", "a cat", None),
        ("<has cat>", "a dog", "expected '<has cat>'"),
        ("<uuid>", "6f3f0b5e-7f3c-4b39-9d0c-1d8f6b6f4f0e", None),
        ("<uuid>", "6f3f0b5e", "expected '<uuid>'"),
        ("<score>", 0.5, None),
        ("<score>", 1.5, "expected '<score>'"),
        ("<vector 2>", [0.6, 0.8], None),
        ("<vector 2>", [0.6, 0.9], "expected '<vector 2>'"),
        ("<vector 2>", [1.0], "expected '<vector 2>'"),
        ("<vector 1>", ["1"], "expected '<vector 1>'"),
        ("<base64 1>", "AACAPw==", None),
        ("<base64 1>", "AACAP", "expected '<base64 1>'"),
        ("<base64 1>", [1.0], "expected '<base64 1>'"),
        ("<int8 2>", [-128, 127], None),
        ("<int8 1>", [128], "expected '<int8 1>'"),
        ("<uint8 1>", [-1], "expected '<uint8 1>'"),
        ("<int8 1>", [1.0], "expected '<int8 1>'"),
    ],
)
def test_a_value_equals_the_fixture_or_the_difference_is_reported(
    expected: Any, found: Any, difference: str | None
) -> None:
    lines = differences({"status": 200, "json": expected}, 200, {}, found)

    assert (difference is not None) == bool(lines)
    assert not difference or difference in lines[0]


def test_status_headers_and_absent_keys_are_compared_too() -> None:
    expect = {"status": 200, "headers": {"content-type": "json"}, "absent": ["results.0.document"]}

    lines = differences(expect, 500, {"content-type": "text/html"}, {"results": [{"document": None}]})

    assert 3 == len(lines)
    assert "status 500, expected 200" == lines[0]
    assert "results.0.document is present" == lines[2]


@pytest.mark.parametrize(
    ("expected", "found", "agrees"),
    [
        ({"a": "<vector 384>"}, {"a": [1, 2], "more": 1}, True),
        ({"a": [{"index": 0}, {"index": 1}]}, {"a": [{"index": 7}]}, True),
        ({"a": 1}, {"a": 2.5}, True),
        ({"a": "one sentence"}, {"a": "another"}, True),
        ({"a": "<score>"}, {"a": "0.5"}, False),
        ({"a": {"b": 1}}, {"a": {}}, False),
        ({"a": {"b": 1}}, {"a": [1]}, False),
        ({"a": "<base64 2>"}, {"a": [1.0, 2.0]}, False),
    ],
)
def test_only_the_shape_is_compared_with_another_model(expected: Any, found: Any, agrees: bool) -> None:
    assert agrees == (not shape_differences({"status": 200, "json": expected}, 200, found))


def test_the_differences_of_another_server_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with _answering({"object": "list"}) as url:
        code = replay.main(["--url", url, "--only", "openai/embeddings/text", "openai/embeddings/empty_list"])

    printed = capsys.readouterr().out
    assert 1 == code
    assert "openai/embeddings/empty_list: status 200, expected 400" in printed


def test_a_missing_server_or_case_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == replay.main(["--url", "http://127.0.0.1:9", "--only", "openai"])
    assert "doesn't respond" in capsys.readouterr().err
    assert 2 == replay.main(["--only", "no-such-dialect"])
    assert "no such dialect" in capsys.readouterr().err


@contextmanager
def _answering(body: object) -> Iterator[str]:
    """Run a server that always returns the same body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            reply = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
