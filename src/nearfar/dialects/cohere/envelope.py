"""What Cohere's routes have in common: how bodies are read, and the note about what was billed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from nearfar import errors
from nearfar.dialects import read_body

if TYPE_CHECKING:
    from litestar import Request

_T = TypeVar("_T")


class Meta(Struct, omit_defaults=True):
    """Which version of the protocol answered, and what Cohere would bill."""

    api_version: dict[str, str]
    billed_units: dict[str, int] = {}


async def read(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode the body. Raises MalformedBody, or InputError for JSON of another shape."""
    try:
        return await read_body(request, decoder)
    except msgspec.ValidationError as error:
        raise errors.InputError(str(error)) from error


def named(model: str | None) -> str:
    """Give the model's name where the protocol wants one. Raises NoModel."""
    if not model:
        raise errors.NoModel("a model parameter is required for this endpoint.")
    return model
