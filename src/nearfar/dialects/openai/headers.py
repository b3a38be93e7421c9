"""OpenAI's response headers: the processing time, and the model's queue as rate limits. There is no organization."""

from __future__ import annotations

import math
from functools import lru_cache
from urllib.parse import quote

from nearfar.core import errors
from nearfar.core.caller import Caller
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
    "x-ratelimit-limit-tokens": "tokens that may be queued or running; the key's limit where less of it is left",
    "x-ratelimit-remaining-tokens": "tokens that the queue has room for now",
    "x-ratelimit-reset-tokens": "time until the queue is empty or the key's limit is whole, at the throughput so far",
    "x-ratelimit-limit-requests": "requests that may be queued or running",
    "x-ratelimit-remaining-requests": "requests that the queue has room for now",
    "x-ratelimit-reset-requests": "the same for requests",
}


def usual_headers(request: AnyRequest) -> dict[str, str]:
    """Return the headers of every response."""
    headers = {"openai-version": "2020-10-01"}
    if (elapsed := elapsed_ms(request)) is not None:
        headers["openai-processing-ms"] = str(elapsed)
    return headers


def answer_headers(request: AnyRequest, _: EmbedJob, done: Embedded) -> dict[str, str]:
    """Return the headers of a reply to a job."""
    limits = _limits(request, fleet_of(request).queue_capacity(done.info.name))
    return {**usual_headers(request), "openai-model": _header_value(done.info.name), **limits}


@lru_cache(maxsize=256)
def _header_value(name: str) -> str:
    return quote(name, safe=_PLAIN)


def error_headers(request: AnyRequest, error: errors.NearfarError) -> dict[str, str]:
    """Return the headers of an error; a full queue and a key without room report their limits."""
    limits = _limits(request, error.capacity) if isinstance(error, errors.Overloaded) else {}
    return usual_headers(request) | limits


def _limits(request: AnyRequest, capacity: QueueCapacity | None) -> dict[str, str]:
    """Return the limits of the model's queue, or those of the caller's key where less is left of them."""
    headers: dict[str, str] = {}
    if capacity:
        headers |= {
            "x-ratelimit-limit-tokens": str(capacity.tokens_limit),
            "x-ratelimit-remaining-tokens": str(capacity.tokens_free),
            "x-ratelimit-limit-requests": str(capacity.requests_limit),
            "x-ratelimit-remaining-requests": str(capacity.requests_free),
        }
    if capacity and capacity.drain_s is not None:
        reset = duration(capacity.drain_s)
        headers |= {"x-ratelimit-reset-tokens": reset, "x-ratelimit-reset-requests": reset}
    caller: Caller | None = request.scope["state"].get("caller")
    if caller is None or caller.rate_limit is None:
        return headers
    for kind, own in caller.rate_limit.allowances().items():
        left = int(headers.get(f"x-ratelimit-remaining-{kind}", own.left + 1))
        limit = int(headers.get(f"x-ratelimit-limit-{kind}", own.limit))
        if (own.left, own.limit) < (left, limit):
            headers[f"x-ratelimit-limit-{kind}"] = str(own.limit)
            headers[f"x-ratelimit-remaining-{kind}"] = str(own.left)
            if own.reset_s is not None:
                headers[f"x-ratelimit-reset-{kind}"] = duration(own.reset_s)
    return headers


def duration(seconds: float) -> str:
    """Format a time as OpenAI does, in milliseconds rounded up: ``0s``, ``12ms``, ``1.5s``, ``6m0s``, ``1h0m0.25s``."""
    ms = math.ceil(seconds * 1000)
    if 0 < ms < 1000:  # noqa: PLR2004 — a second
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{whole}{ms / 1000:g}s"
