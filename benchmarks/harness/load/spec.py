"""The load generator's input and output, as JSON over stdin and stdout.

Standard library only: the generator imports this and must stay light.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """Requests of one kind and the clients that send them, in turn.

    ``rate`` is None for a closed loop: each of ``clients`` sends its next request when its response arrives. Otherwise
    the loop is open: requests arrive at that rate per second, whatever the server does, and at most ``clients`` are in
    flight.
    """

    name: str
    path: str
    bodies: tuple[str, ...]
    texts_per_request: int
    clients: int
    rate: float | None = None
    keep: int = 0  # return the responses to this many of the first bodies


@dataclass(frozen=True, kw_only=True)
class LoadSpec:
    """One run: all streams at once against one server on this machine."""

    port: int
    streams: tuple[StreamSpec, ...]
    warmup_s: float = 0.5  # not measured
    duration_s: float = 4.0
    timeout_s: float = 120.0  # how long to wait for responses after that

    def to_json(self) -> str:
        """Encode the spec for the generator's stdin."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> LoadSpec:
        """Decode what ``to_json`` wrote."""
        fields: dict[str, Any] = json.loads(text)
        streams = (StreamSpec(**{**stream, "bodies": tuple(stream["bodies"])}) for stream in fields.pop("streams"))
        return LoadSpec(streams=tuple(streams), **fields)


@dataclass(frozen=True, kw_only=True)
class StreamResult:
    """Throughput, latency and failures of one stream. Latencies are NaN if no request succeeded."""

    name: str
    requests_per_s: float
    texts_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    succeeded: int  # status 200, inside the measurement window
    failures: dict[str, int] = field(default_factory=dict)  # by status or connection error, over the whole run
    first_failure: str = ""  # its body
    kept: tuple[tuple[int, str], ...] = ()  # (index of the body, response)
    total_texts: int = 0  # embedded in the whole run, warmup included


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """The results of all streams of one run."""

    streams: tuple[StreamResult, ...]
    generator_cpu: float  # CPU time of the generator / wall time: the part of one core it used

    def to_json(self) -> str:
        """Encode the result, NaN included."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> LoadResult:
        """Decode what ``to_json`` wrote."""
        fields: dict[str, Any] = json.loads(text)
        streams = (
            StreamResult(**{**stream, "kept": tuple((index, body) for index, body in stream["kept"])})
            for stream in fields["streams"]
        )
        return LoadResult(streams=tuple(streams), generator_cpu=fields["generator_cpu"])
