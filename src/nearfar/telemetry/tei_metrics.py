"""Text-embeddings-inference's names beside ours, for dashboards that were made for it; only where the settings say so.

Names, labels and buckets are TEI's to the letter. Where its meaning and ours part: a request is a job, of whichever
protocol, and counts when it ends; durations of inputs are those of their job, once each; and a request has the method
``single`` where it has one input, be it in a list or not.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

from nearfar.core import errors
from nearfar.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions

    from nearfar.core.jobs import Timings
    from nearfar.telemetry.events import BatchRecord, JobRecord, QueueDepth

_DURATIONS = ("duration", "tokenization_duration", "queue_duration", "inference_duration")
_SECONDS = tuple(0.00001 * 1.5**power for power in range(1, 36))
_BUCKETS: dict[str, tuple[float, ...]] = {
    **{f"te_{of}_{kind}": _SECONDS for of in ("request", "embed", "predict") for kind in _DURATIONS},
    "te_batch_next_size": tuple(2.0**power for power in range(13)),
    "te_batch_next_tokens": tuple(2.0**power for power in range(21)),
}
_PREDICTS = {"rank", "classify"}
_FAILURES: dict[type[BaseException], str] = {
    errors.RequestError: "validation",
    errors.TooManyItems: "batch_size",
    errors.InvalidTokenIds: "tokenization",
    errors.WrongTask: "model_type",
    errors.Overloaded: "overloaded",
    errors.ClientDisconnected: "dropped",
    asyncio.CancelledError: "dropped",
    BaseException: "inference",
}


class TeiMetrics(Metrics):
    """Counts what Metrics does, and renders both."""

    def __init__(self, queues: Callable[[], Iterable[QueueDepth]]) -> None:
        super().__init__(queues)
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        views = [
            View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(bounds))
            for name, bounds in _BUCKETS.items()
        ]
        self._tei = MeterProvider([reader], views=views, shutdown_on_exit=False)
        meter = self._tei.get_meter("tei")
        self._of_tei = {name: meter.create_histogram(name) for name in _BUCKETS}
        # Counters that may go down, as others would be called te_request_count_total. Prometheus' rate() takes either.
        names = ["te_request_count", "te_request_success", "te_request_failure"]
        names += [f"te_{of}_{what}" for of in ("embed", "predict") for what in ("count", "success")]
        self._counts = {name: meter.create_up_down_counter(name) for name in names}

        def size(_: CallbackOptions) -> list[Observation]:
            return [Observation(sum(depth.rows for depth in queues()))]

        meter.create_observable_gauge("te_queue_size", [size])

    def batch_done(self, record: BatchRecord) -> None:
        """Count a forward under both names."""
        super().batch_done(record)
        self._of_tei["te_batch_next_size"].record(record.rows)
        self._of_tei["te_batch_next_tokens"].record(record.tokens)

    def job_done(self, record: JobRecord) -> None:
        """Count a job and its inputs, and how long it took or why it failed."""
        super().job_done(record)
        method = {"method": "single" if record.inputs == 1 else "batch"}
        inputs = "te_predict" if record.task in _PREDICTS else "te_embed"
        self._counts["te_request_count"].add(1, method)
        self._counts[f"{inputs}_count"].add(record.inputs)
        if record.failure:
            kind = next(_FAILURES[kind] for kind in record.failure.__mro__ if kind in _FAILURES)
            self._counts["te_request_failure"].add(1, {"err": kind})
            return
        self._counts["te_request_success"].add(1, method)
        self._counts[f"{inputs}_success"].add(record.inputs)
        if record.timings:
            self._took("te_request", record.timings)
            self._took(inputs, record.timings)

    def close(self) -> None:
        """Stop counting."""
        self._tei.shutdown()
        super().close()

    def _took(self, of: str, timings: Timings) -> None:
        values = (timings.total_s, timings.tokenise_s, timings.queue_s, timings.run_s)
        for kind, seconds in zip(_DURATIONS, values, strict=True):
            self._of_tei[f"{of}_{kind}"].record(seconds)
