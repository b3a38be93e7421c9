"""TEI's response headers: the time, characters and tokens that an answer took."""

from __future__ import annotations

import time
from collections.abc import Iterable

from nearfar.core.jobs import (
    Classified,
    ClassifyJob,
    Embedded,
    EmbedJob,
    Ranked,
    RankJob,
    Represented,
    RepresentJob,
    Scored,
    Timings,
)
from nearfar.core.types import TokenIds
from nearfar.dialects.kit.request import AnyRequest, fleet_of

Job = EmbedJob | RepresentJob | RankJob | ClassifyJob
Done = Embedded | Represented | Ranked | Scored | Classified

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


def compute_headers(request: AnyRequest, job: Job, done: Done) -> dict[str, str]:
    """Return the headers of the answer to one job."""
    timings: Timings = done.timings
    return total_headers(request, done.model, characters_of(job), done.usage.tokens) | {
        "x-tokenization-time": _ms(timings.tokenize_s),
        "x-queue-time": _ms(timings.queue_s),
        "x-inference-time": _ms(timings.inference_s),
    }


def total_headers(request: AnyRequest, model: str, characters: int, tokens: int) -> dict[str, str]:
    """Return the headers that the answer to several jobs has, too."""
    device = next((info.device for info in fleet_of(request).infos() if info.name == model), "cpu")
    total = _ms(time.perf_counter() - request.scope["state"]["began"])
    return {
        "x-compute-type": "cpu" if device == "cpu" else "gpu",
        "x-compute-time": total,
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(tokens),
        "x-total-time": total,
    }


def characters_of(job: Job) -> int:
    """Count the characters of a job's texts; as in TEI a token id counts as one."""
    if isinstance(job, RankJob):
        return len(job.documents) * len(job.query) + _count(job.documents)
    return _count(job.inputs)


def rows_of(job: Job) -> int:
    """Return the number of a job's inputs."""
    return len(job.documents if isinstance(job, RankJob) else job.inputs)


def _count(inputs: Iterable[str | TokenIds | tuple[str, str]]) -> int:
    return sum(
        len(one) if isinstance(one, str) else sum(len(part) if isinstance(part, str) else 1 for part in one)
        for one in inputs
    )


def _ms(seconds: float) -> str:
    """Return whole milliseconds, rounded down as in TEI."""
    return str(int(seconds * 1000))
