"""What happened, told to whoever watches: one record a batch, one a request. No text and no key is ever in one.

``Metrics`` counts through OpenTelemetry and renders Prometheus' text form; a plain list will do in a test.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from prometheus_client import CollectorRegistry, generate_latest

from nearfar.jobs import Timings
from nearfar.types import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions

_SECONDS: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_COUNTS = tuple(float(2**power) for power in range(16))


class BatchRecord(Struct, frozen=True, kw_only=True):
    """One forward: how many rows and real tokens, how large the padded batch was, how long it took."""

    model: str
    rows: int
    requests: int
    tokens: int
    padded_tokens: int
    run_s: float
    failed: bool


class RequestRecord(Struct, frozen=True, kw_only=True):
    """One HTTP request. ``route`` is the path's template, so that its values stay few."""

    route: str
    method: str
    status: int
    seconds: float


class JobRecord(Struct, frozen=True, kw_only=True):
    """One job of so many inputs, and how long it took, or what was raised instead."""

    task: Task
    inputs: int
    failure: type[BaseException] | None
    timings: Timings | None


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

    ``weight_bytes`` is what the model's weights count for in the memory budget.
    """

    model: str
    rows: int
    tokens: int
    memory: dict[str, int]
    weight_bytes: int = 0


class Metrics:
    """Counts everything through OpenTelemetry; ``render`` gives Prometheus' text form."""

    def __init__(self, queues: Callable[[], Iterable[QueueDepth]]) -> None:
        self._registry = CollectorRegistry()
        # OpenTelemetry's exporter appends a unit to a name: "s" makes nearfar_request → nearfar_request_seconds.
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        buckets = {"nearfar_request": _SECONDS, "nearfar_batch": _SECONDS, "nearfar_model_load": _SECONDS}
        counts = ("nearfar_batch_rows", "nearfar_batch_tokens", "nearfar_batch_padded_tokens", "nearfar_batch_requests")
        buckets |= dict.fromkeys(counts, _COUNTS)
        views = [
            View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(bounds))
            for name, bounds in buckets.items()
        ]
        self._provider = MeterProvider([reader], views=views, shutdown_on_exit=False)
        meter = self._provider.get_meter("nearfar")
        self._request_s = meter.create_histogram("nearfar_request", "s", "Time from a request's head to its answer's")
        self._batch_s = meter.create_histogram("nearfar_batch", "s", "Time of one forward")
        self._batch_rows = meter.create_histogram("nearfar_batch_rows", description="Rows a forward")
        self._batch_requests = meter.create_histogram(
            "nearfar_batch_requests", description="Requests that share a forward"
        )
        self._batch_tokens = meter.create_histogram("nearfar_batch_tokens", description="Real tokens a forward")
        self._batch_padded = meter.create_histogram(
            "nearfar_batch_padded_tokens", description="Padded area of a forward"
        )
        self._failed = meter.create_counter("nearfar_batches_failed", description="Forwards that raised")
        self._load_s = meter.create_histogram("nearfar_model_load", "s", "Time to load a model")
        self._closed = meter.create_counter("nearfar_model_evictions", description="Models closed, by reason")
        # By model; they are told with every request, and counting through an instrument takes 20 µs.
        self._tokens: Counter[str] = Counter()
        self._truncated: Counter[str] = Counter()
        self._counters()
        self._gauges(queues)

    def _counters(self) -> None:
        def tokens(_: CallbackOptions) -> list[Observation]:
            return [Observation(count, {"model": model}) for model, count in self._tokens.items()]

        def truncated(_: CallbackOptions) -> list[Observation]:
            return [Observation(count, {"model": model}) for model, count in self._truncated.items()]

        counter = self._provider.get_meter("nearfar").create_observable_counter
        counter("nearfar_tokens", [tokens], description="Tokens that went through a model")
        counter("nearfar_truncated_tokens", [truncated], description="Tokens cut off before")

    def _gauges(self, queues: Callable[[], Iterable[QueueDepth]]) -> None:
        def rows(_: CallbackOptions) -> list[Observation]:
            return [Observation(depth.rows, {"model": depth.model}) for depth in queues()]

        def tokens(_: CallbackOptions) -> list[Observation]:
            return [Observation(depth.tokens, {"model": depth.model}) for depth in queues()]

        def memory(_: CallbackOptions) -> list[Observation]:
            found = {
                kind: size for depth in queues() for kind, size in depth.memory.items()
            }  # the same from every model
            return [Observation(size, {"kind": kind}) for kind, size in found.items()]

        def weights(_: CallbackOptions) -> list[Observation]:
            return [Observation(depth.weight_bytes, {"model": depth.model}) for depth in queues()]

        meter = self._provider.get_meter("nearfar")
        meter.create_observable_gauge("nearfar_model_weights", [weights], "By", "Weights of a loaded model, as counted")
        meter.create_observable_gauge("nearfar_engine_memory", [memory], "By", "Memory an engine's library has in use")
        meter.create_observable_gauge("nearfar_queue_rows", [rows], description="Rows waiting now")
        meter.create_observable_gauge("nearfar_queue_tokens", [tokens], description="Tokens waiting or running now")

    def batch_done(self, record: BatchRecord) -> None:
        """Count a forward."""
        of = {"model": record.model}
        self._batch_s.record(record.run_s, of)
        self._batch_rows.record(record.rows, of)
        self._batch_requests.record(record.requests, of)
        self._batch_tokens.record(record.tokens, of)
        self._batch_padded.record(record.padded_tokens, of)
        self._failed.add(int(record.failed), of)

    def request_done(self, record: RequestRecord) -> None:
        """Count a request by route, method and status."""
        of = {"route": record.route, "method": record.method, "status": str(record.status)}
        self._request_s.record(record.seconds, of)

    def job_done(self, record: JobRecord) -> None:
        """Count nothing: the request that a job is for is counted, and so are its batches."""

    def tokens_counted(self, model: str, tokens: int, truncated: int) -> None:
        """Count a job's tokens."""
        self._tokens[model] += tokens
        self._truncated[model] += truncated

    def model_loaded(self, record: LoadRecord) -> None:
        """Count a load by whether it failed, and its time."""
        self._load_s.record(record.seconds, {"model": record.model, "failed": str(record.failed).lower()})

    def model_closed(self, model: str, reason: CloseReason) -> None:
        """Count a model that was closed."""
        self._closed.add(1, {"model": model, "reason": reason})

    def render(self) -> bytes:
        """Give every metric in Prometheus' text form, version 0.0.4."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Stop counting."""
        self._provider.shutdown()
