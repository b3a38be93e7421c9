"""An answer before it is sent: its JSON, and what TEI's headers tell of the work behind it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from nearfar.dialects import encoded_response, fleet_of, report
from nearfar.jobs import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from litestar import Response

    from nearfar.dialects import AnyRequest
    from nearfar.types import TokenIds

HEADERS = {
    "x-compute-type": "cpu or gpu",
    "x-compute-time": "Milliseconds since the request came",
    "x-compute-characters": "Characters of all inputs; a token id counts as one",
    "x-compute-tokens": "Tokens that went through the model",
    "x-total-time": "Milliseconds since the request came",
}


class Answered(Struct, frozen=True, kw_only=True):
    """A whole body, of ``rows`` inputs with so many ``characters``, by the ``model``."""

    body: bytes
    model: str
    rows: int
    characters: int
    usage: Usage


def count(inputs: Iterable[str | TokenIds | tuple[str, str]]) -> int:
    """Count the characters; a token id counts as one, as it does for TEI."""
    return sum(
        len(one) if isinstance(one, str) else sum(len(part) if isinstance(part, str) else 1 for part in one)
        for one in inputs
    )


def respond(request: AnyRequest, done: Answered) -> Response[bytes]:
    """Send an answer with what it took."""
    headers = report(request, done.model, done.rows, done.usage)
    took_ms = str(int((time.perf_counter() - request.scope["state"]["began"]) * 1000))
    device = next((info.device for info in fleet_of(request).infos() if info.name == done.model), "cpu")
    headers |= {
        "x-compute-type": "cpu" if device == "cpu" else "gpu",
        "x-compute-time": took_ms,
        "x-compute-characters": str(done.characters),
        "x-compute-tokens": str(done.usage.tokens),
        "x-total-time": took_ms,
    }
    return encoded_response(done.body, headers=headers)
