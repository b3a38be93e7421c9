"""Numbers for Prometheus: counts what it is told through OpenTelemetry, and renders Prometheus' text form.

Every label has few values: models that are served, tasks, dialects, routes by their template, statuses, classes of
errors. None is a caller's own word.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions

    from nearfar.telemetry.events import BatchRecord, CloseReason, JobRecord, LoadRecord, QueueDepth, RequestRecord

_SECONDS: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PARTS = (0.0001, 0.00025, 0.0005, *_SECONDS)
_COUNTS = tuple(float(2**power) for power in range(16))
_SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)

# OpenTelemetry's exporter appends a unit to a name: "s" makes nearfar_request → nearfar_request_seconds.
_HISTOGRAMS: dict[str, tuple[str, tuple[float, ...], str]] = {
    "nearfar_request": ("s", _SECONDS, "Time from a request's head to its answer's"),
    "nearfar_tokenise": ("s", _PARTS, "Time of a job until its rows were in the queue"),
    "nearfar_queue": ("s", _PARTS, "Time of a job from then until the first batch with its rows began"),
    "nearfar_run": ("s", _PARTS, "Time of a job from then until the last batch with its rows ended"),
    "nearfar_render": ("s", _PARTS, "Time from the end of a job until its answer began"),
    "nearfar_batch": ("s", _SECONDS, "Time of one forward"),
    "nearfar_batch_rows": ("", _COUNTS, "Rows a forward"),
    "nearfar_batch_requests": ("", _COUNTS, "Requests that share a forward"),
    "nearfar_batch_tokens": ("", _COUNTS, "Real tokens a forward"),
    "nearfar_batch_padded_tokens": ("", _COUNTS, "Padded area of a forward"),
    "nearfar_batch_padding_share": ("", _SHARES, "Share of a forward's padded area that is padding"),
    "nearfar_model_load": ("s", _SECONDS, "Time to load a model"),
}


class Metrics:
    """Counts everything through OpenTelemetry; ``render`` gives Prometheus' text form."""

    def __init__(self, queues: Callable[[], Iterable[QueueDepth]]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, processor time and open files, where the system has /proc
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        views = [
            View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(bounds))
            for name, (_, bounds, _) in _HISTOGRAMS.items()
        ]
        self._provider = MeterProvider([reader], views=views, shutdown_on_exit=False)
        meter = self._provider.get_meter("nearfar")
        self._histograms = {
            name.removeprefix("nearfar_"): meter.create_histogram(name, unit, description)
            for name, (unit, _, description) in _HISTOGRAMS.items()
        }
        self._failed_batches = meter.create_counter("nearfar_batches_failed", description="Forwards that raised")
        self._failed_jobs = meter.create_counter("nearfar_jobs_failed", description="Jobs that failed, by what of")
        self._closed = meter.create_counter("nearfar_model_evictions", description="Models closed, by reason")
        # By model; they are told with every request, and counting through an instrument takes 5 to 20 µs.
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

        def requests(_: CallbackOptions) -> list[Observation]:
            return [Observation(depth.requests, {"model": depth.model}) for depth in queues()]

        def limits(_: CallbackOptions) -> list[Observation]:
            return [Observation(depth.limit, {"model": depth.model}) for depth in queues()]

        def memory(_: CallbackOptions) -> list[Observation]:
            found = {
                kind: size for depth in queues() for kind, size in depth.memory.items()
            }  # the same from every model
            return [Observation(size, {"kind": kind}) for kind, size in found.items()]

        def weights(_: CallbackOptions) -> list[Observation]:
            return [Observation(depth.weight_bytes, {"model": depth.model}) for depth in queues()]

        gauge = self._provider.get_meter("nearfar").create_observable_gauge
        gauge("nearfar_model_weights", [weights], "By", "Weights of a loaded model, as counted")
        gauge("nearfar_engine_memory", [memory], "By", "Memory an engine's library has in use")
        gauge("nearfar_queue_rows", [rows], description="Rows waiting now")
        gauge("nearfar_queue_tokens", [tokens], description="Tokens waiting or running now")
        gauge("nearfar_queue_requests", [requests], description="Requests waiting or running now")
        gauge("nearfar_queue_limit_tokens", [limits], description="Tokens that may wait or run")

    def batch_done(self, record: BatchRecord) -> None:
        """Count a forward."""
        of = {"model": record.model}
        kept = self._histograms
        kept["batch"].record(record.run_s, of)
        kept["batch_rows"].record(record.rows, of)
        kept["batch_requests"].record(record.requests, of)
        kept["batch_tokens"].record(record.tokens, of)
        kept["batch_padded_tokens"].record(record.padded_tokens, of)
        kept["batch_padding_share"].record(1 - record.tokens / max(record.padded_tokens, 1), of)
        self._failed_batches.add(int(record.failed), of)

    def request_done(self, record: RequestRecord) -> None:
        """Count a request by dialect, route, method and status, and how long its answer took to make."""
        of = {
            "dialect": record.dialect,
            "route": record.route,
            "method": record.method,
            "status": str(record.status),
        }
        self._histograms["request"].record(record.seconds, of)
        if record.render_s is not None:
            self._histograms["render"].record(record.render_s, {"dialect": record.dialect})

    def job_done(self, record: JobRecord) -> None:
        """Count how long a job took by its parts, or what it failed of."""
        if record.failure:
            self._failed_jobs.add(1, {"task": record.task, "failure": record.failure.__name__})
        elif record.timings and record.model:
            of = {"model": record.model, "task": record.task}
            self._histograms["tokenise"].record(record.timings.tokenise_s, of)
            self._histograms["queue"].record(record.timings.queue_s, of)
            self._histograms["run"].record(record.timings.run_s, of)

    def tokens_counted(self, model: str, tokens: int, truncated: int) -> None:
        """Count a job's tokens."""
        self._tokens[model] += tokens
        self._truncated[model] += truncated

    def model_loaded(self, record: LoadRecord) -> None:
        """Count a load by whether it failed, and its time."""
        of = {"model": record.model, "failed": str(record.failed).lower()}
        self._histograms["model_load"].record(record.seconds, of)

    def model_closed(self, model: str, reason: CloseReason) -> None:
        """Count a model that was closed."""
        self._closed.add(1, {"model": model, "reason": reason})

    def render(self) -> bytes:
        """Give every metric in Prometheus' text form, version 0.0.4."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Stop counting."""
        self._provider.shutdown()
