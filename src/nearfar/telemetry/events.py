"""What happened, told to whoever watches: one record a batch, one a request. No text and no key is ever in one.

``Metrics`` counts them and ``Tracing`` makes spans of them; a plain list will do in a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

from nearfar.core.jobs import Timings
from nearfar.core.types import Task
from nearfar.telemetry.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Sequence


class BatchRecord(Struct, frozen=True, kw_only=True):
    """One forward: how many rows and real tokens, how large the padded batch was, how long it took.

    ``watches`` are those of the requests that had rows in it.
    """

    model: str
    rows: int
    requests: int
    tokens: int
    padded_tokens: int
    run_s: float
    failed: bool
    watches: tuple[Stopwatch, ...] = ()


class RequestRecord(Struct, frozen=True, kw_only=True):
    """One HTTP request. ``route`` is the path's template, so that its values stay few.

    ``render_s`` passed from the end of its job until its answer began; None where no job ended well.
    """

    dialect: str
    route: str
    method: str
    status: int
    seconds: float
    render_s: float | None = None


class JobRecord(Struct, frozen=True, kw_only=True):
    """One job of so many inputs, and how long it took, or what was raised instead.

    ``model`` and ``watch`` are None where no model was held for it.
    """

    task: Task
    inputs: int
    failure: type[BaseException] | None
    timings: Timings | None
    model: str | None = None
    watch: Stopwatch | None = None


class LoadRecord(Struct, frozen=True, kw_only=True):
    """One model that was loaded, or couldn't be, and how long that took, the wait for room not counted."""

    model: str
    seconds: float
    failed: bool


CloseReason = Literal["memory", "idle", "asked"]


class Observer(Protocol):
    """Whoever watches. Every method is called on the event loop and must return at once."""

    def batch_done(self, record: BatchRecord) -> None:
        """Take note of a forward that ended, well or not."""

    def request_done(self, record: RequestRecord) -> None:
        """Take note of an answered request."""

    def job_done(self, record: JobRecord) -> None:
        """Take note of a job that ended, well or not."""

    def tokens_counted(self, model: str, tokens: int, truncated: int) -> None:
        """Take note of what one job brings to a model, and of what was cut off it."""

    def model_loaded(self, record: LoadRecord) -> None:
        """Take note of a model that was loaded, or couldn't be."""

    def model_closed(self, model: str, reason: CloseReason) -> None:
        """Take note of a model that was closed while the server goes on: for room, for want of use, or by order."""


class QueueDepth(Struct, frozen=True, kw_only=True):
    """What is in one model's lane now: rows that wait, tokens that wait or run, the process' bytes by kind.

    ``requests`` are those that the tokens belong to, ``limit`` is how many tokens may wait or run, and ``weight_bytes``
    is what the model's weights count for in the memory budget.
    """

    model: str
    rows: int
    tokens: int
    memory: dict[str, int]
    requests: int = 0
    limit: int = 0
    weight_bytes: int = 0


class Observers:
    """Several observers as one: each is told everything, in their order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers: Sequence[Observer] = observers

    def batch_done(self, record: BatchRecord) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.batch_done(record)

    def request_done(self, record: RequestRecord) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.request_done(record)

    def job_done(self, record: JobRecord) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.job_done(record)

    def tokens_counted(self, model: str, tokens: int, truncated: int) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.tokens_counted(model, tokens, truncated)

    def model_loaded(self, record: LoadRecord) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.model_loaded(record)

    def model_closed(self, model: str, reason: CloseReason) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.model_closed(model, reason)
