"""A finished answer, and how it is sent: with TEI's headers about the time and tokens that it took."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from litestar import Request, Response  # noqa: TC002 — Litestar reads the handler's annotations
from msgspec import Struct

from nearfar.core.jobs import Classified, Embedded, Ranked, Represented, Scored, Timings, Usage
from nearfar.dialects.kit.endpoint import encoded_response, record_usage
from nearfar.dialects.kit.request import cancel_on_disconnect, fleet_of, read_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from nearfar.core.types import TokenIds
    from nearfar.dialects.kit.request import AnyRequest

_T = TypeVar("_T")
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


class Answer(Struct, frozen=True, kw_only=True):
    """An answer's JSON body with the figures for its headers. The answer to several requests has no timings."""

    body: bytes
    model: str
    rows: int
    characters: int
    usage: Usage
    timings: Timings | None

    @classmethod
    def of(
        cls, body: bytes, done: Classified | Embedded | Ranked | Represented | Scored, rows: int, characters: int
    ) -> Answer:
        """Build the answer to one job."""
        return cls(
            body=body, model=done.model, rows=rows, characters=characters, usage=done.usage, timings=done.timings
        )


def count_characters(inputs: Iterable[str | TokenIds | tuple[str, str]]) -> int:
    """Count the inputs' characters; as in TEI a token id counts as one."""
    return sum(
        len(one) if isinstance(one, str) else sum(len(part) if isinstance(part, str) else 1 for part in one)
        for one in inputs
    )


def handler(
    kind: type[_T], run: Callable[[AnyRequest, _T], Coroutine[Any, Any, Answer]]
) -> Callable[[AnyRequest], Awaitable[Response[bytes]]]:
    """Return a route handler that decodes a body of this type, runs it and sends the answer."""
    decoder = msgspec.json.Decoder(kind)

    async def handle(request: Request[Any, Any, Any]) -> Response[bytes]:
        body = await read_request(request, decoder)
        return send(request, await cancel_on_disconnect(request, run(request, body)))

    return handle


def send(request: AnyRequest, answer: Answer) -> Response[bytes]:
    """Build the response, with TEI's headers."""
    headers = record_usage(request, answer.model, answer.rows, answer.usage, answer.timings)
    device = next((info.device for info in fleet_of(request).infos() if info.name == answer.model), "cpu")
    total = _ms(time.perf_counter() - request.scope["state"]["began"])
    headers |= {
        "x-compute-type": "cpu" if device == "cpu" else "gpu",
        "x-compute-time": total,
        "x-compute-characters": str(answer.characters),
        "x-compute-tokens": str(answer.usage.tokens),
        "x-total-time": total,
    }
    if timings := answer.timings:
        headers |= {
            "x-tokenization-time": _ms(timings.tokenize_s),
            "x-queue-time": _ms(timings.queue_s),
            "x-inference-time": _ms(timings.inference_s),
        }
    return encoded_response(answer.body, headers=headers)


def _ms(seconds: float) -> str:
    """Return whole milliseconds, rounded down as in TEI."""
    return str(int(seconds * 1000))
