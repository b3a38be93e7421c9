"""An answer before it is sent: its JSON, and what TEI's headers tell of the work behind it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from nearfar.core.jobs import Timings, Usage
from nearfar.dialects.kit.base import encoded_response, fleet_of, record_usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from litestar import Response

    from nearfar.core.types import TokenIds
    from nearfar.dialects.kit.base import AnyRequest

SUM_HEADERS = {
    "x-compute-type": "cpu or gpu",
    "x-compute-time": "Milliseconds since the request came, as x-total-time",
    "x-compute-characters": "Characters of all inputs; a token id counts as one",
    "x-compute-tokens": "Tokens that went through the model",
    "x-total-time": "Milliseconds since the request came",
}
HEADERS = SUM_HEADERS | {
    "x-tokenization-time": "Milliseconds until the inputs were tokenised, once their model was there",
    "x-queue-time": "Milliseconds that passed then until the first batch with them began",
    "x-inference-time": "Milliseconds from then until the last batch with them ended",
}


class Answered(Struct, frozen=True, kw_only=True):
    """A whole body, of ``rows`` inputs with so many ``characters``, by the ``model``. Several have no one timing."""

    body: bytes
    model: str
    rows: int
    characters: int
    usage: Usage
    timings: Timings | None


def count(inputs: Iterable[str | TokenIds | tuple[str, str]]) -> int:
    """Count the characters; a token id counts as one, as it does for TEI."""
    return sum(
        len(one) if isinstance(one, str) else sum(len(part) if isinstance(part, str) else 1 for part in one)
        for one in inputs
    )


def respond(request: AnyRequest, done: Answered) -> Response[bytes]:
    """Send an answer with what it took."""
    headers = record_usage(request, done.model, done.rows, done.usage, done.timings)
    device = next((info.device for info in fleet_of(request).infos() if info.name == done.model), "cpu")
    total = _ms(time.perf_counter() - request.scope["state"]["began"])
    headers |= {
        "x-compute-type": "cpu" if device == "cpu" else "gpu",
        "x-compute-time": total,
        "x-compute-characters": str(done.characters),
        "x-compute-tokens": str(done.usage.tokens),
        "x-total-time": total,
    }
    if took := done.timings:
        headers |= {
            "x-tokenization-time": _ms(took.tokenise_s),
            "x-queue-time": _ms(took.queue_s),
            "x-inference-time": _ms(took.run_s),
        }
    return encoded_response(done.body, headers=headers)


def _ms(seconds: float) -> str:
    """Give whole milliseconds, as TEI does; it doesn't round them either."""
    return str(int(seconds * 1000))
