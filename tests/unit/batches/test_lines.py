"""The check of a batch's input: each kind of bad line has a fault that names it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from nearfar.batches.lines import MAX_LINE_BYTES, Limits, check_lines, read_lines

ENDPOINT = "/v1/embeddings"
LIMITS = Limits(lines=4, inputs=6)


def line(custom_id: object = "a", **fields: Any) -> bytes:
    whole = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": {"model": "m", "input": "a"}}
    return json.dumps(whole | fields).encode() + b"\n"


def without(name: str) -> bytes:
    fields = json.loads(line())
    del fields[name]
    return json.dumps(fields).encode()


BAD: dict[str, tuple[bytes, str, int | None]] = {
    "nothing": (b"", "empty_file", None),
    "blank lines": (b"\n \n\r\n", "empty_file", None),
    "text": (b"hello", "invalid_json_line", 1),
    "cut": (line()[:-20], "invalid_json_line", 1),
    "two objects": (line().strip() + line(), "invalid_json_line", 1),
    "latin-1": (line("é").decode("unicode_escape").encode("latin-1"), "invalid_json_line", 1),
    "UTF-16": (line().decode().strip().encode("utf-16"), "invalid_json_line", 1),
    "zeros": (b"\0" * 100, "invalid_json_line", 1),
    "nested too deeply": (line(body=0).replace(b"0}", b'{"a":' + b"[" * 100_000), "invalid_json_line", 1),
    "a list": (b"[1]", "invalid_type", 1),
    "null": (b"null", "invalid_type", 1),
    "no custom_id": (without("custom_id"), "missing_required_parameter", 1),
    "no method": (without("method"), "missing_required_parameter", 1),
    "no url": (without("url"), "missing_required_parameter", 1),
    "no body": (without("body"), "missing_required_parameter", 1),
    "a number as custom_id": (line(7), "invalid_type", 1),
    "null as custom_id": (line(None), "invalid_type", 1),
    "an empty custom_id": (line(""), "invalid_custom_id", 1),
    "a long custom_id": (line("a" * 513), "invalid_custom_id", 1),
    "a custom_id twice": (line() + b"\n" + line(), "duplicate_custom_id", 2),
    "GET": (line(method="GET"), "invalid_method", 1),
    "another endpoint": (line(url="/v1/rerank"), "mismatched_endpoint", 1),
    "a whole address": (line(url="http://localhost/v1/embeddings"), "mismatched_endpoint", 1),
    "a list as body": (line(body=[1]), "invalid_type", 1),
    "text as body": (line(body="a"), "invalid_type", 1),
    "a long line": (line(body={"input": "a" * MAX_LINE_BYTES}), "line_too_long", 1),
    "too many lines": (b"".join(line(str(at)) for at in range(5)), "too_many_requests", None),
    "too many texts": (line(body={"input": ["a"] * 7}), "too_many_inputs", None),
    "too many texts in all": (
        line("a", body={"texts": ["a"] * 4}) + line("b", body={"texts": ["a"] * 3}),
        "too_many_inputs",
        None,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_a_fault_with_its_number(name: str) -> None:
    data, code, number = BAD[name]

    faults = check_lines(io.BytesIO(data), (ENDPOINT,), LIMITS).faults

    assert [(fault.code, fault.line) for fault in faults] == [(code, number)]


def test_a_body_that_is_no_object_is_named() -> None:
    (fault,) = check_lines(io.BytesIO(line(body=[1])), (ENDPOINT,), LIMITS).faults

    assert ("body", True) == (fault.param, "got `array` - at `$.body`" in fault.message)


def test_all_faults_of_a_file_are_found() -> None:
    data = line("a") + b"no\n" + line("b", method="PUT", url="/x") + line("a")

    faults = check_lines(io.BytesIO(data), (ENDPOINT,), LIMITS).faults

    assert [(fault.line, fault.code) for fault in faults] == [
        (2, "invalid_json_line"),
        (3, "invalid_method"),
        (3, "mismatched_endpoint"),
        (4, "duplicate_custom_id"),
    ]


def test_a_file_full_of_faults_is_read_no_further() -> None:
    checked = check_lines(io.BytesIO(b"no\n" * 1000), (ENDPOINT,), Limits(2000, 2000))

    assert (checked.total, len(checked.faults)) == (100, 100)


def test_token_ids_are_one_text() -> None:
    data = line("a", body={"input": [1] * 100}) + line("b", body={"input": [[1, 2], [3]]})

    assert not check_lines(io.BytesIO(data), (ENDPOINT,), LIMITS).faults


def test_the_model_is_known_where_all_lines_have_the_same() -> None:
    same, other = line("a") + line("b"), line("c", body={"model": "n", "input": "a"})

    assert check_lines(io.BytesIO(same), (ENDPOINT,), LIMITS).model == "m"
    assert check_lines(io.BytesIO(same + other), (ENDPOINT,), LIMITS).model is None


def test_a_byte_order_mark_and_blank_lines_are_no_lines() -> None:
    data = b"\xef\xbb\xbf" + line("a") + b"\r\n\n" + line("b").strip()

    assert not check_lines(io.BytesIO(data), (ENDPOINT,), LIMITS).faults


def test_reading_goes_on_at_an_offset() -> None:
    file = io.BytesIO(line("a") + b"\n" + line("b") + line("c"))
    (_, offset), *rest = read_lines(file, 0)

    assert [data for data, _ in read_lines(file, offset)] == [data for data, _ in rest] == [line("b"), line("c")]
