"""TEI's response headers: the time, characters and tokens that an answer took."""

from __future__ import annotations

import time
from collections.abc import Iterable

from nearfar.core.jobs import Chat, ClassifyJob, EmbedJob, RankJob, RepresentJob, Result
from nearfar.core.types import TokenIds
from nearfar.dialects.kit.request import AnyRequest

Job = EmbedJob | RepresentJob | RankJob | ClassifyJob

TOTAL_HEADERS = {
    "x-compute-type": "cpu or gpu",
    "x-compute-time": "Milliseconds since the request began; the same as x-total-time",
    "x-compute-characters": "Characters of all inputs; a token id counts as one",
    "x-compute-tokens": "Tokens that the model processed",
    "x-total-time": "Milliseconds since the request began",
}
HEADERS = TOTAL_HEADERS | {
    "x-tokenization-time": "Milliseconds for tokenization",
    "x-queue-time": "Milliseconds in the queue, until the first batch began",
    "x-inference-time": "Milliseconds from then until the last batch ended",
}


def compute_headers(request: AnyRequest, job: Job, done: Result) -> dict[str, str]:
    """Return the headers of the answer to one job."""
    return total_headers(request, done, characters_of(job)) | {
        "x-tokenization-time": _ms(done.timings.tokenize_s),
        "x-queue-time": _ms(done.timings.queue_s),
        "x-inference-time": _ms(done.timings.inference_s),
    }


def total_headers(request: AnyRequest, done: Result, characters: int) -> dict[str, str]:
    """Return the headers that the answer to several jobs has, too."""
    total = _ms(time.perf_counter() - request.scope["state"]["began"])
    return {
        "x-compute-type": "cpu" if done.info.device == "cpu" else "gpu",
        "x-compute-time": total,
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(done.usage.tokens),
        "x-total-time": total,
    }


def characters_of(job: Job) -> int:
    """Count the characters of a job's texts; as in TEI a token id counts as one."""
    if isinstance(job, RankJob):
        return len(job.documents) * len(job.query) + _count(job.documents)
    return _count(job.inputs)


def _count(inputs: Iterable[str | TokenIds | tuple[str, str] | Chat]) -> int:
    return sum(
        sum(len(part) if isinstance(part, str) else 1 for part in one) if isinstance(one, tuple) else len(one)
        for one in inputs
    )


def _ms(seconds: float) -> str:
    """Return whole milliseconds, rounded down as in TEI."""
    return str(int(seconds * 1000))
