"""The headers that OpenAI's answers carry, of what is true here: the API's version, time taken, queue capacity.

The limits are those of the model's queue. There is nobody's organisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from nearfar.core.errors import Overloaded
from nearfar.dialects.kit.base import elapsed_ms, fleet_of

if TYPE_CHECKING:
    from nearfar.core.errors import NearfarError
    from nearfar.core.types import QueueCapacity
    from nearfar.dialects.kit.base import AnyRequest

_PLAIN = " !#$%&'()*+,/:;<=>?@[]^`{|}"  # a header's other characters, and line breaks most of all, are written %XX

USUAL_HEADERS = {
    "openai-version": "the version of OpenAI's API that is spoken",
    "openai-processing-ms": "milliseconds from the request's head to its answer",
}
ANSWER_HEADERS = {
    **USUAL_HEADERS,
    "openai-model": "the model that answered",
    "x-nearfar-truncated-tokens": "tokens cut off because the model takes no more",
    "x-ratelimit-limit-tokens": "tokens that may wait for the model or run in it",
    "x-ratelimit-remaining-tokens": "tokens that its queue has room for now",
    "x-ratelimit-reset-tokens": "how long what is in the queue takes, at the pace of the last batches",
    "x-ratelimit-limit-requests": "requests that may wait for the model or run in it",
    "x-ratelimit-remaining-requests": "requests that its queue has room for now",
    "x-ratelimit-reset-requests": "the same as x-ratelimit-reset-tokens",
}


def usual_headers(request: AnyRequest) -> dict[str, str]:
    """Give the headers that every answer has."""
    headers = {"openai-version": "2020-10-01"}
    if (spent := elapsed_ms(request)) is not None:
        headers["openai-processing-ms"] = str(spent)
    return headers


def answer_headers(request: AnyRequest, model: str) -> dict[str, str]:
    """Give the headers of an answer that a model was asked for."""
    return (
        usual_headers(request)
        | {"openai-model": quote(model, safe=_PLAIN)}
        | _limits(fleet_of(request).queue_capacity(model))
    )


def error_headers(request: AnyRequest, error: NearfarError) -> dict[str, str]:
    """Give the headers of a refusal; that of a full queue tells how full."""
    return usual_headers(request) | _limits(error.capacity if isinstance(error, Overloaded) else None)


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
        reset = duration(capacity.drain_s)
        headers |= {"x-ratelimit-reset-tokens": reset, "x-ratelimit-reset-requests": reset}
    return headers


def duration(seconds: float) -> str:
    """Write a time as OpenAI does: ``0s``, ``12ms``, ``1.5s``, ``6m0s``, ``1h0m0.25s``."""
    ms = round(seconds * 1000)
    if 0 < ms < 1000:  # noqa: PLR2004 — a second
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{whole}{ms / 1000:g}s"
