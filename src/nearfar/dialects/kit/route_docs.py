"""What the OpenAPI document says of a route: the types of its bodies, and an example of each.

Types are msgspec's. What a dialect enforces by itself, to refuse it in its vendor's words, msgspec must not enforce:
``json_schema`` tells readers of it and no decoder.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from nearfar.core.errors import NearfarError


class RouteDocs(Struct, frozen=True, kw_only=True):
    """One route, for whoever reads about it.

    ``body`` and ``reply`` are types that msgspec can make a schema of; None for no body, and for an answer that isn't
    JSON. An answer that may be of several shapes has a tuple of types. ``query`` are the parameters that may follow the
    path, each with its schema, and ``path`` an example of each that is part of it. The examples must be legal: tests
    send the one, and those of ``examples`` by their names, and hold an answer's shape against the other.
    ``media_type`` is the answer's, ``headers`` those that it has beside the usual ones, each with what it says.
    ``counts`` tells that an answer to a body says how many tokens were cut off. ``raises`` are the errors that may come
    instead, beside those about the key; None for all that there are for a request with a body, or with none.
    """

    summary: str
    body: Any = None
    reply: Any = None
    example: object = None
    examples: dict[str, object] = {}
    reply_example: object = None
    query: dict[str, Any] = {}
    path: dict[str, Any] = {}
    media_type: str = "application/json"
    headers: dict[str, str] = {}
    counts: bool = True
    raises: tuple[type[NearfarError], ...] | None = None

    def __deepcopy__(self, _: object) -> RouteDocs:
        """Litestar copies handlers deeply, and types with msgspec's Meta can't be copied."""
        return self


def route_docs(summary: str, **about: Any) -> dict[str, Any]:
    """Give what goes into a handler's ``opt``."""
    return {"docs": RouteDocs(summary=summary, **about)}


def json_schema(**keywords: Any) -> Meta:
    """Add keywords to a type's schema, and nothing to what its decoder takes."""
    return Meta(extra_json_schema=keywords)


def requires(kind: Any, **properties: dict[str, Any]) -> Any:
    """Say that a body must have these fields, of these schemas, though its decoder lets them be left out."""
    return Annotated[kind, json_schema(required=list(properties), properties=properties)]


def requires_any(kind: Any, *choices: dict[str, dict[str, Any]]) -> Any:
    """Say that a body must have all fields of at least one of these choices."""
    return Annotated[kind, json_schema(anyOf=[{"required": list(one), "properties": one} for one in choices])]


def each_item(*kinds: dict[str, Any]) -> dict[str, Any]:
    """Say that each item of a list is of one of these schemas as well: what stands at a struct in a union is lost."""
    return {"allOf": [{"items": {"anyOf": list(kinds)}}]}


NOT_EMPTY: dict[str, Any] = {"type": "string", "minLength": 1}
NOT_BLANK: dict[str, Any] = {"type": "string", "pattern": r"\S"}
NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
BASE64: dict[str, Any] = {"type": "string", "contentEncoding": "base64", "description": "float32, little-endian"}

# Parts of answers that are JSON already.
Numbers = Annotated[msgspec.Raw, json_schema(**NUMBERS)]
RowsOfNumbers = Annotated[msgspec.Raw, json_schema(type="array", items=NUMBERS)]
NumbersOrBase64 = Annotated[msgspec.Raw, json_schema(anyOf=[NUMBERS, BASE64])]

NotEmpty = Annotated[str, json_schema(minLength=1)]
NotBlank = Annotated[str, json_schema(pattern=r"\S")]
AtLeastOne = Annotated[int, json_schema(minimum=1)]
