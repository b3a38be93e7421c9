"""Events: one struct for everything that is measured. No event contains a text or a key.

An observer is any callable that takes an event: ``Metrics.observe`` counts them, ``Tracing.observe`` turns them into
spans, and a list's ``append`` collects them in a test. Observers run on the event loop and must return at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from msgspec import Struct

from nearfar.core.jobs import Timings
from nearfar.core.types import Task
from nearfar.telemetry.stopwatch import Stopwatch

UnloadReason = Literal["memory", "idle", "asked"]
EndedStatus = Literal["failed", "completed", "expired", "cancelled"]  # of a batch
# Why a connection is closed: no request came for too long, the client didn't read its answer, too many are open, or
# the client still sends a body that was refused.
CloseReason = Literal["idle", "unread", "limit", "late_body"]


class ForwardDone(Struct, frozen=True, kw_only=True):
    """One forward has ended, with or without an exception."""

    model: str
    rows: int
    requests: int
    tokens: int
    # Rows times the length of the longest one.
    padded_tokens: int
    duration_s: float
    failed: bool
    # Of the requests that had rows in the batch.
    stopwatches: tuple[Stopwatch, ...] = ()


class JobDone(Struct, frozen=True, kw_only=True):
    """One job has ended: with a result, or with an exception of ``error_type``."""

    task: Task
    inputs: int
    error_type: type[BaseException] | None = None
    # None if the job got no model.
    model: str | None = None
    timings: Timings | None = None
    stopwatch: Stopwatch | None = None
    tokens: int = 0
    truncated_tokens: int = 0


class RequestDone(Struct, frozen=True, kw_only=True):
    """The head of one HTTP response is about to be sent."""

    dialect: str
    # The path's template, so that it has few values.
    route: str
    method: str
    status: int
    duration_s: float
    # From the end of the job; None if no job ended well.
    render_s: float | None = None


class ModelLoaded(Struct, frozen=True, kw_only=True):
    """One model was loaded, or failed to load."""

    model: str
    # Without the wait for memory.
    duration_s: float
    failed: bool


class ModelUnloaded(Struct, frozen=True, kw_only=True):
    """One model was unloaded while the server runs on."""

    model: str
    reason: UnloadReason


class ConnectionClosed(Struct, frozen=True, kw_only=True):
    """The server closed one connection that was overdue."""

    reason: CloseReason


class BatchLinesStored(Struct, frozen=True, kw_only=True):
    """Answers to lines of one of OpenAI's batches were stored."""

    completed: int
    failed: int


class BatchEnded(Struct, frozen=True, kw_only=True):
    """One of OpenAI's batches has ended."""

    id: str
    endpoint: str
    status: EndedStatus
    # In seconds since 1970; a batch may outlive the server.
    created_at: int
    # Its lines, and how many of them were answered with and without an error.
    requests: int
    completed: int
    failed: int
    tokens: int


Event: TypeAlias = (
    ForwardDone | JobDone | RequestDone | ModelLoaded | ModelUnloaded | ConnectionClosed | BatchLinesStored | BatchEnded
)
Observer: TypeAlias = Callable[[Event], None]


class QueueDepth(Struct, frozen=True, kw_only=True):
    """State of one model's queue and engine, sampled when metrics are read."""

    model: str
    # Rows that wait.
    rows: int
    # Tokens that wait or run, the requests they belong to, and the limit on such tokens.
    tokens: int
    requests: int = 0
    limit: int = 0
    # Bytes in use by the engine's library, by kind.
    memory: dict[str, int]
    # Bytes of weights, as the memory budget counts them.
    weight_bytes: int = 0
