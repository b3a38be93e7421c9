"""Prometheus metrics.

Every label has few values: served models, tasks, dialects, route templates, statuses, error classes. No label contains
text that a client chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nearfar.telemetry.events import (
    BatchEnded,
    BatchLinesStored,
    CloseReason,
    ConnectionClosed,
    Event,
    ForwardDone,
    JobDone,
    ModelLoaded,
    ModelUnloaded,
    QueueDepth,
    RequestDone,
)

_SECONDS: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SHORT = (0.0001, 0.00025, 0.0005, *_SECONDS)
_COUNTS = tuple(float(2**power) for power in range(16))
_RATIOS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)

# name → labels, bucket bounds, description
_HISTOGRAMS: dict[str, tuple[tuple[str, ...], tuple[float, ...], str]] = {
    "http_request_duration_seconds": (
        ("dialect", "method", "route", "status"),
        _SECONDS,
        "Time from the head of a request to the head of its response",
    ),
    "tokenize_duration_seconds": (("model", "task"), _SHORT, "Time from the start of a job until its rows are queued"),
    "queue_wait_duration_seconds": (
        ("model", "task"),
        _SHORT,
        "Time from queued rows until the first forward with rows of the job starts",
    ),
    "inference_duration_seconds": (
        ("model", "task"),
        _SHORT,
        "Time from the start of a job's first forward until its last one ends",
    ),
    "render_duration_seconds": (("dialect",), _SHORT, "Time from the end of a job until its response starts"),
    "forward_duration_seconds": (("model",), _SECONDS, "Time of one forward"),
    "batch_rows": (("model",), _COUNTS, "Rows in a forward"),
    "batch_requests": (("model",), _COUNTS, "Requests that share a forward"),
    "batch_tokens": (("model",), _COUNTS, "Tokens in a forward, without padding"),
    "batch_padded_tokens": (("model",), _COUNTS, "Tokens in a forward, with padding"),
    "batch_padding_ratio": (("model",), _RATIOS, "Padding in a forward, as a part of its padded tokens"),
    "model_load_duration_seconds": (("failed", "model"), _SECONDS, "Time to load a model"),
}
# name → labels, description
_COUNTERS: dict[str, tuple[tuple[str, ...], str]] = {
    "batch_api_lines": (("result",), "Lines of OpenAI's batches that were answered"),
    "connections_closed": (("reason",), "Connections that the server closed, by reason"),
    "forward_failures": (("model",), "Forwards that raised an exception"),
    "job_failures": (("error_type", "task"), "Jobs that failed, by error class"),
    "model_evictions": (("model", "reason"), "Models unloaded, by reason"),
    "tokens": (("model",), "Tokens that went through a model"),
    "truncated_tokens": (("model",), "Tokens cut off before a model"),
}
# name → field of QueueDepth, description
_GAUGES: dict[str, tuple[str, str]] = {
    "model_weights_bytes": ("weight_bytes", "Weights of a loaded model, as the memory budget counts"),
    "queue_rows": ("rows", "Rows that wait"),
    "queue_tokens": ("tokens", "Tokens that wait or run"),
    "queue_requests": ("requests", "Requests that wait or run"),
    "queue_limit_tokens": ("limit", "Tokens that may wait or run"),
}
# name → description
_CONNECTION_GAUGES = {
    "connections": "Open connections",
    "unread_bytes": "Bytes of large answers that clients haven't read yet",
}

disable_created_metrics()  # type: ignore[no-untyped-call]  # the time of each series' creation, which doubles the series


class Metrics(Collector):
    """Counts events; ``render`` returns Prometheus' text format.

    ``queues`` is called to sample the queue of each loaded model, ``connections`` to sample their gauges.
    """

    def __init__(
        self, queues: Callable[[], Iterable[QueueDepth]], connections: Callable[[], Mapping[str, int]] = dict
    ) -> None:
        self._queues = queues
        self._connections = connections
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, CPU time and open files, where the system has /proc
        registry.register(self)  # generate_latest then calls ``collect``
        metrics: dict[str, Histogram | Counter] = {}
        for name, (labels, bounds, description) in _HISTOGRAMS.items():
            metrics[name] = Histogram(f"nearfar_{name}", description, labels, registry=registry, buckets=bounds)
        for name, (labels, description) in _COUNTERS.items():
            metrics[name] = Counter(f"nearfar_{name}", description, labels, registry=registry)
        # The series of a metric by its labels, which are few.
        self._series: dict[str, Callable[..., Any]] = {name: cache(metric.labels) for name, metric in metrics.items()}
        for reason in get_args(CloseReason):
            self._series["connections_closed"](reason)  # 0, so that the first one shows as a rate
        self._batch_lines_stored(BatchLinesStored(completed=0, failed=0))
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            ForwardDone: self._forward_done,
            JobDone: self._job_done,
            RequestDone: self._request_done,
            ModelLoaded: self._model_loaded,
            ModelUnloaded: self._model_unloaded,
            ConnectionClosed: self._connection_closed,
            BatchLinesStored: self._batch_lines_stored,
            BatchEnded: lambda _: None,  # its lines are counted
        }

    def observe(self, event: Event) -> None:
        """Count one event."""
        self._handlers[type(event)](event)

    def render(self) -> bytes:
        """Return every metric in Prometheus' text form, version 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Sample queues and memory when metrics are read: yield the gauges, with a series for each loaded model."""
        depths = list(self._queues())
        for name, (field, description) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"nearfar_{name}", description, labels=["model"])
            for depth in depths:
                gauge.add_metric([depth.model], getattr(depth, field))
            yield gauge
        for name, value in self._connections().items():
            yield GaugeMetricFamily(f"nearfar_{name}", _CONNECTION_GAUGES[name], value=value)
        memory = GaugeMetricFamily("nearfar_engine_memory_bytes", "Memory an engine's library uses", labels=["kind"])
        for kind, size in {kind: size for depth in depths for kind, size in depth.memory.items()}.items():
            memory.add_metric([kind], size)  # equal for every model
        yield memory

    def _forward_done(self, event: ForwardDone) -> None:
        series, model = self._series, event.model
        series["forward_duration_seconds"](model).observe(event.duration_s)
        series["batch_rows"](model).observe(event.rows)
        series["batch_requests"](model).observe(event.requests)
        series["batch_tokens"](model).observe(event.tokens)
        series["batch_padded_tokens"](model).observe(event.padded_tokens)
        series["batch_padding_ratio"](model).observe(1 - event.tokens / max(event.padded_tokens, 1))
        series["forward_failures"](model).inc(event.failed)

    def _request_done(self, event: RequestDone) -> None:
        labels = (event.dialect, event.method, event.route, event.status)
        self._series["http_request_duration_seconds"](*labels).observe(event.duration_s)
        if event.render_s is not None:
            self._series["render_duration_seconds"](event.dialect).observe(event.render_s)

    def _job_done(self, event: JobDone) -> None:
        series, model, task = self._series, event.model, event.task
        if event.error_type:
            series["job_failures"](event.error_type.__name__, task).inc()
        elif event.timings and model:
            series["tokenize_duration_seconds"](model, task).observe(event.timings.tokenize_s)
            series["queue_wait_duration_seconds"](model, task).observe(event.timings.queue_s)
            series["inference_duration_seconds"](model, task).observe(event.timings.inference_s)
            series["tokens"](model).inc(event.tokens)
            series["truncated_tokens"](model).inc(event.truncated_tokens)

    def _model_loaded(self, event: ModelLoaded) -> None:
        self._series["model_load_duration_seconds"](str(event.failed).lower(), event.model).observe(event.duration_s)

    def _model_unloaded(self, event: ModelUnloaded) -> None:
        self._series["model_evictions"](event.model, event.reason).inc()

    def _connection_closed(self, event: ConnectionClosed) -> None:
        self._series["connections_closed"](event.reason).inc()

    def _batch_lines_stored(self, event: BatchLinesStored) -> None:
        self._series["batch_api_lines"]("completed").inc(event.completed)
        self._series["batch_api_lines"]("failed").inc(event.failed)
