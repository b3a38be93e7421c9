"""The bodies of Cohere's requests and replies. Null means absent; other fields are ignored.

What the decoder accepts and Cohere refuses is refused where the body becomes a job, in Cohere's words.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nearfar.core.caller import LOWEST_PRIORITY
from nearfar.dialects.cohere.envelope import Meta
from nearfar.dialects.kit.rendering import EmbeddingType
from nearfar.dialects.kit.route_docs import (
    BASE64,
    NOT_EMPTY,
    NUMBERS,
    AtLeastOne,
    NotBlank,
    NotEmpty,
    Numbers,
    json_schema,
    requires,
)

MAX_TEXTS = 2048  # Cohere takes 96. Version 1's client cuts its lists to that and version 2's doesn't: more only helps.
MAX_CHUNKS = 10_000
MAX_SHOWN = 65_536  # characters of a text to tokenize, and tokens
TYPES = [kind for union in get_args(EmbeddingType) for kind in get_args(union)]
INPUT_TYPES = ["search_document", "search_query", "classification", "clustering"]
TRUNCATE = ["NONE", "START", "END"]

Priority = Annotated[int, json_schema(minimum=0, maximum=LOWEST_PRIORITY)]
Document = NotEmpty | Annotated[dict[str, Any], json_schema(minProperties=1)]
Documents = Annotated[list[Document], json_schema(minItems=1, maxItems=MAX_CHUNKS - 1)]


class RerankV1Request(Struct, kw_only=True):
    """The body of POST /v1/rerank.

    A document longer than the model's limit is read in up to ``max_chunks_per_doc`` chunks, 10 by default, and the best
    chunk's score counts. ``rank_fields`` selects the fields of documents that are objects, by default ``text``.
    ``instruction`` is our extension: a sentence about what is relevant, for rerankers that are language models.
    """

    model: str | None = None
    query: NotBlank
    documents: Documents
    top_n: AtLeastOne | None = None
    rank_fields: Annotated[list[str], json_schema(minItems=1)] | None = None
    return_documents: bool | None = None
    max_chunks_per_doc: AtLeastOne | None = None
    instruction: str | None = None


class RerankV2Request(Struct, kw_only=True):
    """The body of POST /v2/rerank.

    Documents are truncated to ``max_tokens_per_doc``, by default 4096. An object without a ``text`` is read whole.
    ``rank_fields`` and ``return_documents`` left the protocol, but LiteLLM still sends them. ``priority`` orders the
    queue. ``instruction`` is our extension, as in version 1.
    """

    model: str | None = None
    query: NotBlank
    documents: Documents
    top_n: AtLeastOne | None = None
    rank_fields: list[str] | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: AtLeastOne | None = None
    priority: Priority | None = None
    instruction: str | None = None


class Result(Struct):
    """One document: its index in the request and its score."""

    index: int
    relevance_score: float
    document: dict[str, Any] | UnsetType = UNSET  # absent unless requested: clients fail on null


class RerankUsage(Struct):
    """Tokens that the model read, under Jina's and OpenAI's names."""

    total_tokens: int
    prompt_tokens: int


class RerankReply(Struct, kw_only=True):
    """The body of a response, best first.

    ``model`` and ``usage`` are for Jina's and vLLM's clients, which send the same body to the same path. Version 1 also
    has ``object`` and, for Voyage's clients, the same results as ``data``.
    """

    id: str
    object: Annotated[str, json_schema(const="list")] | UnsetType = UNSET
    model: str
    results: list[Result]
    data: list[Result] | UnsetType = UNSET
    usage: RerankUsage
    meta: Meta


class TextPart(Struct):
    """A part of an input. Cohere's may be images too, which no served model supports."""

    type: Annotated[str, json_schema(const="text")]
    text: NotEmpty | None = None


SomeText = requires(TextPart, text=NOT_EMPTY)


class Input(Struct):
    """One text in parts."""

    content: Annotated[list[SomeText], json_schema(minItems=1)]  # type: ignore[valid-type]


_COUNT = json_schema(minItems=1, maxItems=MAX_TEXTS)
_LIST, _NONE = {"type": "array"}, {"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 0}]}
ONE_OF = json_schema(
    anyOf=[
        {"required": ["texts"], "properties": {"texts": _LIST, "inputs": _NONE}},
        {"required": ["inputs"], "properties": {"inputs": _LIST, "texts": _NONE}},
    ]
)


class EmbedV1Request(Struct, kw_only=True):
    """The body of POST /v1/embed: one of ``texts`` and ``inputs`` must be there.

    ``instruction`` is our extension: a sentence about what is relevant, for models that take one before queries.
    """

    model: str | None = None
    texts: Annotated[list[NotEmpty], _COUNT] | None = None
    inputs: Annotated[list[Input], _COUNT] | None = None
    images: Annotated[list[str], json_schema(maxItems=0)] | None = None
    input_type: Annotated[str | None, json_schema(enum=[*INPUT_TYPES, None])] = None
    embedding_types: list[Annotated[str, json_schema(enum=TYPES)]] | None = None
    truncate: Annotated[str | None, json_schema(enum=[*TRUNCATE, None])] = None
    output_dimension: AtLeastOne | None = None
    max_tokens: AtLeastOne | None = None
    instruction: str | None = None


class EmbedV2Request(EmbedV1Request, kw_only=True):
    """The body of POST /v2/embed: version 1's, and ``priority``, which orders the queue."""

    priority: Priority | None = None


_WHOLE: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": -128, "maximum": 255}}
_ITEMS = {"float": NUMBERS, "base64": BASE64}
_BY_TYPE = {kind: {"type": "array", "items": _ITEMS.get(kind, _WHOLE)} for kind in TYPES}


class EmbedReply(Struct, kw_only=True):
    """The body of a response: vectors of each type, or in version 1 plain lists of numbers."""

    id: str
    embeddings: list[Numbers] | Annotated[dict[str, list[msgspec.Raw]], json_schema(properties=_BY_TYPE)]
    texts: list[str]
    meta: Meta
    response_type: Annotated[str, json_schema(enum=["embeddings_floats", "embeddings_by_type"])]


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /v1/tokenize."""

    model: str | None = None
    text: Annotated[str, json_schema(minLength=1, maxLength=MAX_SHOWN)]


class TokenizeReply(Struct):
    """The body of a response: the tokens' ids and the text of each, which joined are the whole text."""

    tokens: list[int]
    token_strings: list[str]
    meta: Meta


class DetokenizeRequest(Struct, kw_only=True):
    """The body of POST /v1/detokenize."""

    model: str | None = None
    tokens: Annotated[list[Annotated[int, json_schema(minimum=0)]], json_schema(minItems=1, maxItems=MAX_SHOWN)]


class DetokenizeReply(Struct):
    """The body of a response."""

    text: str
    meta: Meta


class KeyReply(Struct):
    """The body of POST /v1/check-api-key's response; an invalid key gets an error."""

    valid: bool
