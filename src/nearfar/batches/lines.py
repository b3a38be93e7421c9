"""The lines of a batch's input and output files.

Input: ``{"custom_id": …, "method": "POST", "url": …, "body": {…}}``. Output: ``{"id": …, "custom_id": …, "response":
{"status_code": …, "request_id": …, "body": {…}}, "error": …}``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import msgspec
from msgspec import Struct

from nearfar.batches.records import Fault

MAX_LINE_BYTES = 16_000_000
_MAX_FAULTS = 100
_MAX_ID = 512
_BOM = b"\xef\xbb\xbf"


class InputLine(Struct, frozen=True):
    """One request of a batch."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class LineAnswer(Struct, frozen=True):
    """The answer to one request of a batch: a status of HTTP, and a body of JSON."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class LineError(Struct, frozen=True):
    """Why a line has no answer."""

    code: str
    message: str


class OutputLine(Struct, frozen=True):
    """One line of an output or error file."""

    id: str
    custom_id: str
    response: LineAnswer | None
    error: LineError | None


class Checked(Struct, frozen=True):
    """What a check of all lines found: how many they are, their model if they all have the same, and their faults."""

    total: int
    model: str | None
    faults: list[Fault]


class Limits(Struct, frozen=True):
    """How many lines a batch may have, and how many texts."""

    lines: int
    inputs: int


_line = msgspec.json.Decoder(InputLine)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)


def read_lines(file: IO[bytes], offset: int) -> Iterator[tuple[bytes, int]]:
    """Yield each line that isn't blank, and where the next one begins. A line that is too long is cut."""
    file.seek(offset)
    if not offset and file.read(len(_BOM)) != _BOM:
        file.seek(0)
    while data := file.readline(MAX_LINE_BYTES):
        if data.strip():
            yield data, file.tell()


def decode_line(data: bytes) -> InputLine:
    """Decode a line that was checked."""
    return _line.decode(data)


def check_lines(file: IO[bytes], endpoints: Sequence[str], limits: Limits) -> Checked:
    """Check every line of a batch's input. Its URL must be one of the endpoints."""
    found = _LineCheck(endpoints, limits)
    for data, _ in read_lines(file, 0):
        found.add(data)
        if found.is_over:
            break
    if not found.total:
        found.add_fault("empty_file", "The input file has no requests.", line=None)
    model = found.models.pop() if len(found.models) == 1 else None
    return Checked(found.total, model, found.faults)


class _LineCheck:
    """Checks lines one by one."""

    def __init__(self, endpoints: Sequence[str], limits: Limits) -> None:
        self.total = 0
        self.models: set[str] = set()
        self.faults: list[Fault] = []
        self.is_over = False
        self._inputs = 0
        self._endpoints = endpoints
        self._limits = limits
        self._lines_of: dict[str, int] = {}

    def add_fault(self, code: str, message: str, param: str | None = None, line: int | None = -1) -> None:
        """Record a fault of the current line, or of the whole file."""
        self.faults.append(Fault(code, message, param, self.total if line == -1 else line))
        self.is_over = self.is_over or len(self.faults) >= _MAX_FAULTS

    def add(self, data: bytes) -> None:
        """Check one line."""
        self.total += 1
        if len(data) >= MAX_LINE_BYTES:
            self.add_fault("line_too_long", f"A line may have at most {MAX_LINE_BYTES:,} bytes.")
            self.is_over = True
            return
        place = None
        try:
            line = _line.decode(data)
            place = "body"
            body = _fields.decode(line.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._add_decode_fault(error, place)
            return
        self._check(line)
        self._count(body)

    def _add_decode_fault(self, error: Exception, place: str | None) -> None:
        if not isinstance(error, msgspec.ValidationError):
            self.add_fault("invalid_json_line", "This line isn't valid JSON in UTF-8.")
            return
        missing = str(error).partition("missing required field `")[2].partition("`")[0]
        if missing:
            self.add_fault("missing_required_parameter", f"Missing required parameter: '{missing}'.", missing)
        else:
            param = str(error).partition("`$.")[2].partition("`")[0] or place
            at = f" - at `$.{place}`" if place else ""
            self.add_fault("invalid_type", f"This line isn't a request: {error}{at}.", param)

    def _check(self, line: InputLine) -> None:
        if line.method != "POST":
            self.add_fault("invalid_method", f"The method must be POST, not {line.method[:20]!r}.", "method")
        if line.url not in self._endpoints:
            needed = "the batch's endpoint," if len(self._endpoints) == 1 else "one of"
            message = f"The URL must be {needed} {', '.join(self._endpoints)}."
            self.add_fault("mismatched_endpoint", message, "url")
        if not 0 < len(line.custom_id) <= _MAX_ID:
            self.add_fault("invalid_custom_id", f"The custom_id must have 1 to {_MAX_ID} characters.", "custom_id")
        elif (first := self._lines_of.setdefault(line.custom_id, self.total)) != self.total:
            message = f"The custom_id {line.custom_id[:100]!r} is that of line {first}, too."
            self.add_fault("duplicate_custom_id", message, "custom_id")

    def _count(self, body: dict[str, msgspec.Raw]) -> None:
        """Count the texts of a body; token ids are one text."""
        if (model := bytes(body.get("model", b""))).startswith(b'"'):
            self.models.add(_text.decode(model))
        inputs = next((bytes(body[name]) for name in ("input", "texts") if name in body), b"")
        items = _items.decode(inputs) if inputs.startswith(b"[") else []
        self._inputs += 1 if not items or bytes(items[0])[:1].isdigit() else len(items)
        limits = self._limits
        if self.total > limits.lines:
            self.add_fault("too_many_requests", f"A batch may have at most {limits.lines:,} requests.", line=None)
            self.is_over = True
        elif self._inputs > limits.inputs:
            self.add_fault("too_many_inputs", f"A batch may have at most {limits.inputs:,} texts.", "input", None)
            self.is_over = True
