"""The bodies of our own requests and answers, and an example of each."""

from __future__ import annotations

from typing import Annotated, Literal, get_type_hints

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nearfar.dialects.described import Numbers, RowsOfNumbers, documented
from nearfar.types import ModelInfo, ModelState, Output


class ModelOrder(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of an admin call: the model's name or one of its aliases."""

    model: str


class RepresentRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /represent. ``outputs`` names what is wanted of all that the model makes; None for all."""

    input: str | Annotated[list[str], documented(minItems=1)]
    model: str | None = None
    outputs: list[Output] | None = None
    input_type: Literal["query", "document"] | None = None
    prompt_name: str | None = None


class Sparse(Struct):
    """The weights above 0 of a vector of ``size``, and where they stand."""

    indices: Annotated[msgspec.Raw, documented(type="array", items={"type": "integer"})]
    values: Numbers
    size: int


class TextRepresentation(Struct, kw_only=True, omit_defaults=True):
    """What the model made of one text, of all that was wanted."""

    index: int
    dense: Numbers | UnsetType = UNSET
    multi_vector: RowsOfNumbers | UnsetType = UNSET
    sparse: Sparse | UnsetType = UNSET


class TokenUsage(Struct):
    """Tokens that went through the model, and those that were cut off before."""

    tokens: int
    truncated_tokens: int


class RepresentReply(Struct, kw_only=True):
    """The body of an answer, in the order of the request."""

    model: str
    data: list[TextRepresentation]
    usage: TokenUsage


class Health(Struct):
    """The body of a good answer about health."""

    status: Literal["live", "ready"]


ServedModel = msgspec.defstruct(
    "ServedModel",
    [*{**get_type_hints(ModelInfo), **get_type_hints(ModelState)}.items()],
    namespace={"__doc__": "All that is true of one served model, and whether it is in memory."},
)


class InfoReply(Struct, kw_only=True):
    """The body of GET /info."""

    name: str
    version: str
    models: list[ServedModel]  # type: ignore[valid-type]


class ErrorReply(Struct):
    """What went wrong: the name of its kind, and a sentence."""

    error: str
    message: str
