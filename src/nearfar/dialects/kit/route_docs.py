"""A route in the OpenAPI document: the types of its bodies, and an example of each.

Types are msgspec's. A rule that a dialect enforces itself, to refuse a request in its vendor's words, must not be
enforced by msgspec: ``json_schema`` adds it to the schema and not to the decoder.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from nearfar.core.caller import AnswerKind
from nearfar.core.errors import NearfarError


class RouteDocs(Struct, frozen=True, kw_only=True):
    """One route, for the OpenAPI document. Tests send the examples."""

    summary: str
    # What the answer has, by which a key needs a scope. Several: the body decides.
    answers: tuple[AnswerKind, ...] = ()
    # More about it, as Markdown with double backquotes.
    details: str = ""
    # Types that msgspec can make a schema of. None is no body, and a reply that isn't JSON; a tuple has alternatives.
    body: Any = None
    reply: Any = None
    body_media_type: str = "application/json"
    # Legal bodies, and more of them by name.
    example: object = None
    examples: dict[str, object] = {}
    # A reply. Fields of an object that it doesn't have are derived from its type.
    reply_example: object = None
    # The schemas of the query parameters, and examples of the path parameters.
    query: dict[str, Any] = {}
    path: dict[str, Any] = {}
    # The values of the path parameters that don't take any.
    path_values: dict[str, list[str]] = {}
    media_type: str = "application/json"  # of the reply
    # Whether the body may ask for a reply of bytes, with its description in the header ``metadata``.
    has_binary_reply: bool = False
    # Headers of the reply besides the usual ones, each with its description.
    headers: dict[str, str] = {}
    # Whether the reply to a body reports how many tokens were truncated.
    counts: bool = True
    # The errors besides those about keys. None is all errors for a route with a body, or all for one without.
    raises: tuple[type[NearfarError], ...] | None = None

    def __deepcopy__(self, _: object) -> RouteDocs:
        """Return itself: Litestar copies handlers deeply, and types with msgspec's Meta can't be copied."""
        return self


def route_docs(summary: str, answers: AnswerKind = "descriptions", **about: Any) -> dict[str, Any]:
    """Return a handler's ``opt`` with its RouteDocs."""
    return {"docs": RouteDocs(summary=summary, answers=(answers,), **about)}


def json_schema(**keywords: Any) -> Meta:
    """Add keywords to a type's schema, without effect on its decoder."""
    return Meta(extra_json_schema=keywords)


def requires(kind: Any, **properties: dict[str, Any]) -> Any:
    """Require these fields with these schemas, which the decoder takes as optional."""
    return Annotated[kind, json_schema(required=list(properties), properties=properties)]


def requires_any(kind: Any, *choices: dict[str, dict[str, Any]]) -> Any:
    """Require all fields of at least one of these choices."""
    return Annotated[kind, json_schema(anyOf=[{"required": list(one), "properties": one} for one in choices])]


def each_item(*kinds: dict[str, Any]) -> dict[str, Any]:
    """Require each item of a list to match one of these schemas; msgspec drops the schema of a struct in a union."""
    return {"allOf": [{"items": {"anyOf": list(kinds)}}]}


# For examples of requests to rerank.
RANKING = {"query": "Where is the cat?", "documents": ["Bananas are yellow.", "The cat sat on the mat."]}

NOT_EMPTY: dict[str, Any] = {"type": "string", "minLength": 1}
NOT_BLANK: dict[str, Any] = {"type": "string", "pattern": r"\S"}
NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
BASE64: dict[str, Any] = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "the numbers' bytes, little-endian; float32 unless another type was requested",
}

# Parts of replies that are encoded already.
Numbers = Annotated[msgspec.Raw, json_schema(**NUMBERS)]
RowsOfNumbers = Annotated[msgspec.Raw, json_schema(type="array", items=NUMBERS)]
NumbersOrBase64 = Annotated[msgspec.Raw, json_schema(anyOf=[NUMBERS, BASE64])]

NotEmpty = Annotated[str, json_schema(minLength=1)]
NotBlank = Annotated[str, json_schema(pattern=r"\S")]
EngineName = Annotated[str, json_schema(examples=["torch"])]
AtLeastOne = Annotated[int, json_schema(minimum=1)]
