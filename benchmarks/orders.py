"""What a benchmark asks of the load generator and what it gets back, as JSON over stdin and stdout.

Standard library only: the generator imports this and must stay light.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Clients of one kind. They take turns at ``bodies``.

    ``rate`` is None for a closed loop: each of ``clients`` sends its next request upon its answer. Otherwise that many
    requests arrive a second, whatever the server does, and at most ``clients`` are in flight.
    """

    name: str
    path: str
    bodies: tuple[str, ...]
    texts: int  # in every body
    clients: int
    rate: float | None = None
    keep: int = 0  # answers to give back whole: those to the first so many bodies


@dataclass(frozen=True, kw_only=True)
class Order:
    """One run: all streams at once against one server of this machine."""

    port: int
    streams: tuple[Stream, ...]
    warm_s: float = 0.5  # not counted
    seconds: float = 4.0
    patience_s: float = 120.0  # beyond the two, for answers that don't come

    def dump(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def load(text: str) -> Order:
        """Read what ``dump`` wrote."""
        fields: dict[str, Any] = json.loads(text)
        streams = tuple(Stream(**{**stream, "bodies": tuple(stream["bodies"])}) for stream in fields.pop("streams"))
        return Order(streams=streams, **fields)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What came of one stream. Times are NaN where nothing was answered."""

    name: str
    requests_per_s: float
    texts_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    answered: int  # with 200, in the counted stretch
    failures: dict[str, int] = field(default_factory=dict)  # by status, or "lost", "unanswered"; of the whole run
    complaint: str = ""  # the first failure's body
    kept: tuple[tuple[int, str], ...] = ()  # (number of the body, answer)
    all_texts: int = 0  # answered in the whole run, warm-up included


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of an order."""

    figures: tuple[Figure, ...]
    cpu_share: float  # of one core, that the generator itself used

    def dump(self) -> str:
        """Write it as JSON, NaN included."""
        return json.dumps(asdict(self))

    @staticmethod
    def load(text: str) -> Outcome:
        """Read what ``dump`` wrote."""
        fields: dict[str, Any] = json.loads(text)
        figures = tuple(
            Figure(**{**figure, "kept": tuple((at, answer) for at, answer in figure["kept"])})
            for figure in fields["figures"]
        )
        return Outcome(figures=figures, cpu_share=fields["cpu_share"])
