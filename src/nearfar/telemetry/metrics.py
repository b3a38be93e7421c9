"""Prometheus metrics, counted through OpenTelemetry.

Every label has few values: served models, tasks, dialects, route templates, statuses, error classes. No label contains
text that a client chose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from nearfar.telemetry.events import Event, ForwardDone, JobDone, ModelLoaded, ModelUnloaded, QueueDepth, RequestDone

_SECONDS: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SHORT = (0.0001, 0.00025, 0.0005, *_SECONDS)
_COUNTS = tuple(float(2**power) for power in range(16))
_RATIOS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)

# name → unit, bucket bounds, description. OpenTelemetry's exporter appends the unit: "s" becomes "_seconds".
_HISTOGRAMS: dict[str, tuple[str, tuple[float, ...], str]] = {
    "http_request_duration": ("s", _SECONDS, "Time from the head of a request to the head of its response"),
    "tokenize_duration": ("s", _SHORT, "Time from the start of a job until its rows are queued"),
    "queue_wait_duration": ("s", _SHORT, "Time from there until the first forward with rows of the job starts"),
    "inference_duration": ("s", _SHORT, "Time from there until the last forward with rows of the job ends"),
    "render_duration": ("s", _SHORT, "Time from the end of a job until its response starts"),
    "forward_duration": ("s", _SECONDS, "Time of one forward"),
    "batch_rows": ("", _COUNTS, "Rows in a forward"),
    "batch_requests": ("", _COUNTS, "Requests that share a forward"),
    "batch_tokens": ("", _COUNTS, "Tokens in a forward, without padding"),
    "batch_padded_tokens": ("", _COUNTS, "Tokens in a forward, with padding"),
    "batch_padding_ratio": ("", _RATIOS, "Padding in a forward, as a part of its padded tokens"),
    "model_load_duration": ("s", _SECONDS, "Time to load a model"),
}


class Metrics:
    """Counts events; ``render`` returns Prometheus' text format.

    ``queues`` is called to sample the queue of each loaded model.
    """

    def __init__(self, queues: Callable[[], Iterable[QueueDepth]]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, processor time and open files, where the system has /proc
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        views = [
            View(instrument_name=f"nearfar_{name}", aggregation=ExplicitBucketHistogramAggregation(bounds))
            for name, (_, bounds, _) in _HISTOGRAMS.items()
        ]
        self._provider = MeterProvider([reader], views=views, shutdown_on_exit=False)
        self._meter = self._provider.get_meter("nearfar")
        self._histograms = {
            name: self._meter.create_histogram(f"nearfar_{name}", unit, description)
            for name, (unit, _, description) in _HISTOGRAMS.items()
        }
        counter = self._meter.create_counter
        self._forward_failures = counter("nearfar_forward_failures", description="Forwards that raised an exception")
        self._job_failures = counter("nearfar_job_failures", description="Jobs that failed, by error class")
        self._evictions = counter("nearfar_model_evictions", description="Models unloaded, by reason")
        # By model. Every request adds to them, and an OpenTelemetry counter takes 5 to 20 µs.
        self._tokens: Counter[str] = Counter()
        self._truncated_tokens: Counter[str] = Counter()
        self._observe_tokens()
        self._observe_queues(queues)
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            ForwardDone: self._forward_done,
            JobDone: self._job_done,
            RequestDone: self._request_done,
            ModelLoaded: self._model_loaded,
            ModelUnloaded: self._model_unloaded,
        }

    def observe(self, event: Event) -> None:
        """Count one event."""
        self._handlers[type(event)](event)

    def _observe_tokens(self) -> None:
        def by_model(counts: Counter[str]) -> Callable[[CallbackOptions], list[Observation]]:
            return lambda _: [Observation(count, {"model": model}) for model, count in counts.items()]

        counter = self._meter.create_observable_counter
        counter("nearfar_tokens", [by_model(self._tokens)], description="Tokens that went through a model")
        counter(
            "nearfar_truncated_tokens", [by_model(self._truncated_tokens)], description="Tokens cut off before that"
        )

    def _observe_queues(self, queues: Callable[[], Iterable[QueueDepth]]) -> None:
        def gauge(name: str, field: str, unit: str, description: str) -> None:
            def sample(_: CallbackOptions) -> list[Observation]:
                return [Observation(getattr(depth, field), {"model": depth.model}) for depth in queues()]

            self._meter.create_observable_gauge(name, [sample], unit, description)

        def memory(_: CallbackOptions) -> list[Observation]:
            sizes = {kind: size for depth in queues() for kind, size in depth.memory.items()}  # equal for every model
            return [Observation(size, {"kind": kind}) for kind, size in sizes.items()]

        gauge("nearfar_model_weights", "weight_bytes", "By", "Weights of a loaded model, as the memory budget counts")
        gauge("nearfar_queue_rows", "rows", "", "Rows that wait")
        gauge("nearfar_queue_tokens", "tokens", "", "Tokens that wait or run")
        gauge("nearfar_queue_requests", "requests", "", "Requests that wait or run")
        gauge("nearfar_queue_limit_tokens", "limit", "", "Tokens that may wait or run")
        self._meter.create_observable_gauge("nearfar_engine_memory", [memory], "By", "Memory an engine's library uses")

    def _forward_done(self, event: ForwardDone) -> None:
        labels = {"model": event.model}
        histograms = self._histograms
        histograms["forward_duration"].record(event.duration_s, labels)
        histograms["batch_rows"].record(event.rows, labels)
        histograms["batch_requests"].record(event.requests, labels)
        histograms["batch_tokens"].record(event.tokens, labels)
        histograms["batch_padded_tokens"].record(event.padded_tokens, labels)
        histograms["batch_padding_ratio"].record(1 - event.tokens / max(event.padded_tokens, 1), labels)
        self._forward_failures.add(int(event.failed), labels)

    def _request_done(self, event: RequestDone) -> None:
        labels = {
            "dialect": event.dialect,
            "route": event.route,
            "method": event.method,
            "status": str(event.status),
        }
        self._histograms["http_request_duration"].record(event.duration_s, labels)
        if event.render_s is not None:
            self._histograms["render_duration"].record(event.render_s, {"dialect": event.dialect})

    def _job_done(self, event: JobDone) -> None:
        if event.error_type:
            self._job_failures.add(1, {"task": event.task, "error_type": event.error_type.__name__})
        elif event.timings and event.model:
            labels = {"model": event.model, "task": event.task}
            self._histograms["tokenize_duration"].record(event.timings.tokenize_s, labels)
            self._histograms["queue_wait_duration"].record(event.timings.queue_s, labels)
            self._histograms["inference_duration"].record(event.timings.inference_s, labels)
            self._tokens[event.model] += event.tokens
            self._truncated_tokens[event.model] += event.truncated_tokens

    def _model_loaded(self, event: ModelLoaded) -> None:
        labels = {"model": event.model, "failed": str(event.failed).lower()}
        self._histograms["model_load_duration"].record(event.duration_s, labels)

    def _model_unloaded(self, event: ModelUnloaded) -> None:
        self._evictions.add(1, {"model": event.model, "reason": event.reason})

    def render(self) -> bytes:
        """Return every metric in Prometheus' text form, version 0.0.4."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Stop counting."""
        self._provider.shutdown()
