"""OpenAI's response headers: the processing time, and the model's queue as rate limits. There is no organization."""

from __future__ import annotations

import math
from functools import lru_cache
from urllib.parse import quote

from nearfar.core import errors
from nearfar.core.jobs import Embedded, EmbedJob
from nearfar.core.types import QueueCapacity
from nearfar.dialects.kit.request import AnyRequest, elapsed_ms, fleet_of

_PLAIN = " !#$%&'()*+,/:;<=>?@[]^`{|}"  # other characters, line breaks above all, are percent-encoded

USUAL_HEADERS = {
    "openai-version": "version of OpenAI's API",
    "openai-processing-ms": "milliseconds from the request's head to its response",
}
ANSWER_HEADERS = {
    **USUAL_HEADERS,
    "openai-model": "the model that answered",
    "x-ratelimit-limit-tokens": "tokens that may be queued or running",
    "x-ratelimit-remaining-tokens": "tokens that the queue has room for now",
    "x-ratelimit-reset-tokens": "time until the queue is empty, at the throughput of the last batches",
    "x-ratelimit-limit-requests": "requests that may be queued or running",
    "x-ratelimit-remaining-requests": "requests that the queue has room for now",
    "x-ratelimit-reset-requests": "the same as x-ratelimit-reset-tokens",
}


def usual_headers(request: AnyRequest) -> dict[str, str]:
    """Return the headers of every response."""
    headers = {"openai-version": "2020-10-01"}
    if (elapsed := elapsed_ms(request)) is not None:
        headers["openai-processing-ms"] = str(elapsed)
    return headers


def answer_headers(request: AnyRequest, _: EmbedJob, done: Embedded) -> dict[str, str]:
    """Return the headers of a reply to a job."""
    limits = _limits(fleet_of(request).queue_capacity(done.info.name))
    return {**usual_headers(request), "openai-model": _header_value(done.info.name), **limits}


@lru_cache(maxsize=256)
def _header_value(name: str) -> str:
    return quote(name, safe=_PLAIN)


def error_headers(request: AnyRequest, error: errors.NearfarError) -> dict[str, str]:
    """Return the headers of an error; a full queue reports its limits."""
    return usual_headers(request) | _limits(error.capacity if isinstance(error, errors.Overloaded) else None)


def _limits(capacity: QueueCapacity | None) -> dict[str, str]:
    if capacity is None:
        return {}
    headers = {
        "x-ratelimit-limit-tokens": str(capacity.tokens_limit),
        "x-ratelimit-remaining-tokens": str(capacity.tokens_free),
        "x-ratelimit-limit-requests": str(capacity.requests_limit),
        "x-ratelimit-remaining-requests": str(capacity.requests_free),
    }
    if capacity.drain_s is not None:
        reset = duration(math.ceil(capacity.drain_s * 1000) / 1000)  # 0s for an empty queue only
        headers |= {"x-ratelimit-reset-tokens": reset, "x-ratelimit-reset-requests": reset}
    return headers


def duration(seconds: float) -> str:
    """Format a time as OpenAI does: ``0s``, ``12ms``, ``1.5s``, ``6m0s``, ``1h0m0.25s``."""
    ms = round(seconds * 1000)
    if 0 < ms < 1000:  # noqa: PLR2004 — a second
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{whole}{ms / 1000:g}s"
