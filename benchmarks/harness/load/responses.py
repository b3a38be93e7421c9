"""HTTP responses of the load generator: when one is complete, and the statistics over all of them.

Standard library only. Bodies of successful responses are skipped unless they are to be kept.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from harness.load.spec import LoadSpec, StreamResult, StreamSpec

if TYPE_CHECKING:
    from collections.abc import Callable

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_END_OF_HEADERS = b"\r\n\r\n"
_FAILURE_CHARS = 300  # of the first failure's body that are reported
_OK = 200


class ResponseParser:
    """Parse one HTTP/1.1 response incrementally. No HEAD, no 1xx, no bodies that end with the connection."""

    __slots__ = ("_chunked", "_headers", "_keep", "_parts", "_remaining", "status")

    def __init__(self, *, keep: bool) -> None:
        self.status = 0
        self._keep = keep
        self._headers = b""
        self._remaining = 0  # bytes of the body, once the headers are parsed
        self._parts: list[bytes] = []
        self._chunked: ChunkedBody | None = None

    def feed(self, data: bytes) -> bool:
        """Parse the next bytes and return True once the response is complete.

        Raises ValueError for a response without a content length or chunks.
        """
        if self.status == 0:
            headers, found, data = (self._headers + data).partition(_END_OF_HEADERS)
            if not found:
                self._headers = headers
                return False
            self._parse_headers(headers)
        if self._chunked is not None:
            return self._chunked.feed(data)
        self._remaining -= len(data)
        if self._keep:
            self._parts.append(data)
        return self._remaining <= 0

    def body(self) -> str:
        """Return the body; empty if it was skipped."""
        return (self._chunked.body() if self._chunked else b"".join(self._parts)).decode()

    def _parse_headers(self, headers: bytes) -> None:
        self.status = int(headers[9:12])  # HTTP/1.1 200
        self._keep |= self.status != _OK
        length = _CONTENT_LENGTH.search(headers)
        if length:
            self._remaining = int(length[1])
        elif _CHUNKED.search(headers):
            self._chunked = ChunkedBody()
        else:
            raise ValueError(f"a response with neither length nor chunks: {headers.decode(errors='replace')}")


class ChunkedBody:
    """Parse a body with chunked transfer encoding, without trailers. Always kept whole."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._offset = 0  # of the next chunk's size
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        """Parse the next bytes and return True once the last chunk, of size 0, is complete."""
        self._raw += data
        while (line := self._raw.find(b"\r\n", self._offset)) >= 0:
            size = int(self._raw[self._offset : line].partition(b";")[0], 16)
            start, end = line + 2, line + 2 + size
            if len(self._raw) < end + 2:
                return False
            if size == 0:
                return True
            self._parts.append(bytes(self._raw[start:end]))
            self._offset = end + 2
        return False

    def body(self) -> bytes:
        """Return the decoded body."""
        return b"".join(self._parts)


class MeasurementWindow:
    """The part of a run that is measured.

    In a closed loop it starts with the first response after the warmup. It ends with the first response that comes at
    least ``duration_s`` later, once as many responses as there are clients have come. So responses that come in bursts,
    or many seconds apart, are neither counted twice nor lost at its ends. In an open loop the window is fixed and
    includes every request *scheduled* in it, however late its response.
    """

    def __init__(self, start: float, duration_s: float, clients: int, *, open_loop: bool) -> None:
        self.start = start
        self.end = start + duration_s if open_loop else math.inf
        self._open_loop = open_loop
        self._missing = clients  # responses before the window may end
        self._duration_s = duration_s
        self._started = open_loop

    def includes(self, scheduled: float, now: float) -> bool:
        """Return whether to count a response that arrived now, to a request scheduled at ``scheduled``."""
        if self._open_loop:
            return self.start <= scheduled < self.end
        if not self._started:
            if now >= self.start:
                self.start, self._started = now, True
            return False
        if now > self.end:
            return False
        self._missing -= 1
        if now >= self.start + self._duration_s and self._missing <= 0:
            self.end = now
        return True


class StreamStats:
    """Collect the responses of one stream."""

    def __init__(self, stream: StreamSpec, spec: LoadSpec, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock
        self._open_loop = stream.rate is not None
        self._window = MeasurementWindow(
            clock() + spec.warmup_s, spec.duration_s, stream.clients, open_loop=self._open_loop
        )
        self._latencies_s: list[float] = []
        self._last = 0.0
        self._failures: Counter[str] = Counter()
        self._first_failure = ""
        self._kept: dict[int, str] = {}
        self._responses = 0

    def keeps(self, index: int) -> bool:
        """Return whether to keep the response to the body of this index."""
        return index < self._stream.keep and index not in self._kept

    def is_complete(self) -> bool:
        """Return whether the window is over: nothing sent from now on counts."""
        return self._clock() >= self._window.end

    def record(self, index: int, scheduled: float, response: ResponseParser) -> None:
        """Count a response that is complete now."""
        now = self._clock()
        measured = self._window.includes(scheduled, now)
        if response.status != _OK:
            self.record_failure(str(response.status), response.body())
            return
        self._responses += 1
        if self.keeps(index):
            self._kept[index] = response.body()
        if measured:
            self._latencies_s.append(now - scheduled)
            self._last = now

    def record_failure(self, kind: str, body: str = "", count: int = 1) -> None:
        """Count requests without a 200."""
        self._failures[kind] += count
        self._first_failure = self._first_failure or body[:_FAILURE_CHARS]

    def result(self) -> StreamResult:
        """Compute rates and percentiles. In an open loop, late responses lengthen the time that rates are over."""
        end = max(self._last, self._window.end) if self._open_loop else min(self._window.end, self._clock())
        rate = len(self._latencies_s) / max(end - self._window.start, 1e-9)
        times_ms = sorted(1000 * latency for latency in self._latencies_s) or [math.nan]
        p50, p95, p99 = (times_ms[math.ceil(quantile * len(times_ms)) - 1] for quantile in (0.50, 0.95, 0.99))
        return StreamResult(
            name=self._stream.name,
            requests_per_s=rate,
            texts_per_s=rate * self._stream.texts_per_request,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            max_ms=times_ms[-1],
            succeeded=len(self._latencies_s),
            failures=dict(self._failures),
            first_failure=self._first_failure,
            kept=tuple(self._kept.items()),
            total_texts=self._responses * self._stream.texts_per_request,
        )
