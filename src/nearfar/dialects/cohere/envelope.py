"""What Cohere's routes have in common: the model that must be named, what was billed, and the headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.base import request_id

if TYPE_CHECKING:
    from nearfar.dialects.kit.base import AnyRequest

LEAST_URGENT = 999  # the highest number of a priority
_TRACE = "x-debug-trace-id"
USUAL_HEADERS = {_TRACE: "the request's id"}
ANSWER_HEADERS = {
    **USUAL_HEADERS,
    "num_chars": "characters of the request's texts",
    "num_tokens": "tokens that went through the model",
    "x-nearfar-truncated-tokens": "tokens cut off because the model takes no more",
}


class ApiVersion(Struct):
    """The version of the protocol."""

    version: str


class BilledUnits(Struct, omit_defaults=True):
    """What Cohere would bill, of which 0 is left out: tokens for vectors, and for reranking search units."""

    input_tokens: int = 0
    search_units: int = 0


class Meta(Struct, omit_defaults=True):
    """Which version of the protocol answered, and what Cohere would bill."""

    api_version: ApiVersion
    billed_units: BilledUnits | None = None


def meta_example(version: str, **billed: int) -> dict[str, Any]:
    """Give what the OpenAPI document shows."""
    return {"api_version": {"version": version}, **({"billed_units": billed} if billed else {})}


def named(model: str | None) -> str:
    """Give the model's name where the protocol wants one. Raises ModelRequired."""
    if not model:
        raise errors.ModelRequired("a model parameter is required for this endpoint.")
    return model


def refuse_priority(priority: int | None) -> None:
    """Refuse a priority that Cohere doesn't know."""
    if priority is not None and not 0 <= priority <= LEAST_URGENT:
        raise errors.InputError(f"priority must be from 0 to {LEAST_URGENT} - received {priority}")


def usual_headers(request: AnyRequest) -> dict[str, str]:
    """Give the headers that every answer has."""
    return {_TRACE: request_id(request.scope)}


def answer_headers(request: AnyRequest, characters: int, tokens: int) -> dict[str, str]:
    """Give the headers of an answer about texts."""
    return {"num_chars": str(characters), "num_tokens": str(tokens), **usual_headers(request)}


def error_headers(request: AnyRequest, error: errors.NearfarError) -> dict[str, str]:  # noqa: ARG001 — every dialect's signature
    return usual_headers(request)
