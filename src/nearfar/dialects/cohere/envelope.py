"""What Cohere's routes share: the required model and the priority of a request, billed units and headers of a reply."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from nearfar.core import errors
from nearfar.core.caller import LOWEST_PRIORITY
from nearfar.core.jobs import Embedded, EmbedJob, Ranked, RankJob
from nearfar.dialects.kit.request import AnyRequest, request_id
from nearfar.dialects.kit.route_docs import json_schema

Priority = Annotated[int, json_schema(minimum=0, maximum=LOWEST_PRIORITY)]

_TRACE = "x-debug-trace-id"
USUAL_HEADERS = {_TRACE: "the request's id"}
ANSWER_HEADERS = {
    **USUAL_HEADERS,
    "num_chars": "characters of the request's texts",
    "num_tokens": "tokens that went through the model",
}


class ApiVersion(Struct):
    """The version of the protocol."""

    version: str


class BilledUnits(Struct, omit_defaults=True):
    """What Cohere would bill: tokens for vectors, search units for reranking. 0 is left out."""

    input_tokens: int = 0
    search_units: int = 0


class Meta(Struct, omit_defaults=True):
    """Which version of the protocol answered, and what Cohere would bill."""

    api_version: ApiVersion
    billed_units: BilledUnits | None = None


def meta(version: str, **billed: int) -> Meta:
    """Return the version of the protocol and what Cohere would bill."""
    return Meta(ApiVersion(version), BilledUnits(**billed) if billed else None)


def check_priority(priority: int | None) -> None:
    """Raise InputError for a priority outside Cohere's range."""
    if priority is not None and not 0 <= priority <= LOWEST_PRIORITY:
        raise errors.InputError(f"priority must be from 0 to {LOWEST_PRIORITY} - received {priority}")


def usual_headers(request: AnyRequest, *_: object) -> dict[str, str]:
    """Return the headers of every response."""
    return {_TRACE: request_id(request.scope)}


def answer_headers(request: AnyRequest, job: EmbedJob | RankJob, done: Embedded | Ranked) -> dict[str, str]:
    """Return the headers of a reply with vectors or ranked documents."""
    texts = job.inputs if isinstance(job, EmbedJob) else (job.query, *job.documents)
    counts = {"num_chars": str(sum(map(len, texts))), "num_tokens": str(done.usage.tokens)}
    return counts | usual_headers(request)
