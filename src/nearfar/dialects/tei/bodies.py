"""The bodies of TEI's requests and answers. Null means absent; unknown fields are ignored.

TEI serves one model, so the field ``model`` is an addition. Without it the task's default model answers.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nearfar.dialects.kit.route_docs import NOT_BLANK, AtLeastOne, EngineName, NotBlank, each_item, json_schema

_IDS: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT, "minItems": 1}
_PAIR: dict[str, Any] = {**_TEXTS, "maxItems": 2}
_INPUTS: dict[str, Any] = {
    "description": "A text or its token ids in the model's vocabulary, or a list of either",
    "anyOf": [_TEXT, _IDS, {"type": "array", "items": {"anyOf": [_TEXT, _IDS]}, "minItems": 1}],
}
_SEQUENCES: dict[str, Any] = {
    "description": "A text, a pair of texts in a list, or a list of lists of one or two texts",
    "anyOf": [_TEXT, _PAIR, {"type": "array", "items": {"anyOf": [_TEXT, _PAIR]}, "contains": {"type": "array"}}],
}
_DIRECTIONS: dict[str, Any] = {"enum": ["Left", "left", "Right", "right"], "description": "The side to truncate"}
_NOT_EMPTY = json_schema(minItems=1)

Direction = Annotated[str, json_schema(**_DIRECTIONS)]
Inputs = Annotated[str | list[str | int | list[int]], json_schema(allOf=[_INPUTS])]
Sequences = Annotated[str | list[str | list[str]], json_schema(allOf=[_SEQUENCES])]
Number = Annotated[msgspec.Raw, json_schema(type="number")]


class Truncation(Struct, kw_only=True):
    """Whether to truncate an over-long text, and on which side. By default the model's setting decides."""

    truncate: bool | None = None
    truncation_direction: Direction | None = None


class EmbedAllRequest(Truncation, kw_only=True):
    """The body of POST /embed_all and /embed_sparse. The prompt name ``query`` marks the texts as queries."""

    inputs: Inputs
    prompt_name: str | None = None
    model: str | None = None


class EmbedRequest(EmbedAllRequest, kw_only=True):
    """The body of POST /embed."""

    normalize: bool | None = None
    dimensions: AtLeastOne | None = None


class RerankRequest(Truncation, kw_only=True):
    """The body of POST /rerank. ``top_k`` isn't TEI's; other servers with its protocol have it."""

    query: NotBlank
    texts: Annotated[list[str], _NOT_EMPTY]
    raw_scores: bool | None = None
    return_text: bool | None = None
    top_k: AtLeastOne | None = None
    model: str | None = None


class LabelParameters(Struct, kw_only=True):
    """The parameters of Hugging Face's inference clients: the activation, and the number of labels to return."""

    function_to_apply: Annotated[str, json_schema(enum=["none"])] | None = None
    top_k: AtLeastOne | None = None


class PredictRequest(Truncation, kw_only=True):
    """The body of POST /predict: a text, a pair of texts in a list, or a list of lists of one or two texts.

    Hugging Face's clients send ``parameters`` and TEI's don't. The former expect a list around a single text's labels.
    """

    inputs: Sequences
    raw_scores: bool | None = None
    parameters: LabelParameters | None = None
    model: str | None = None


class Sentences(Struct, kw_only=True):
    """A text and the texts to compare with it."""

    source_sentence: str
    sentences: Annotated[list[str], _NOT_EMPTY]


class Parameters(Truncation, kw_only=True):
    """How texts are truncated and prefixed with a prompt."""

    prompt_name: str | None = None


class SimilarityRequest(Struct, kw_only=True):
    """The body of POST /similarity."""

    inputs: Sentences
    parameters: Parameters | None = None
    model: str | None = None


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /tokenize."""

    inputs: str | Annotated[list[str], _NOT_EMPTY]
    add_special_tokens: bool | None = None
    prompt_name: str | None = None
    model: str | None = None


class DecodeRequest(Struct, kw_only=True):
    """The body of POST /decode: the token ids of one text, or a list of those of several."""

    ids: Annotated[
        list[int | list[int]],
        json_schema(anyOf=[_IDS, {"type": "array", "items": {**_IDS, "minItems": 0}, "minItems": 1}]),
    ]
    skip_special_tokens: bool | None = None
    model: str | None = None


_INSTANCE: list[dict[str, Any]] = [
    {"type": "object", "required": ["inputs"], "properties": {"inputs": _INPUTS, "texts": {"type": "null"}}},
    {"type": "object", "required": ["query", "texts"], "properties": {"query": NOT_BLANK, "texts": _TEXTS}},
]


class VertexRequest(Struct, kw_only=True):
    """The body of POST /vertex: the bodies of several requests."""

    instances: Annotated[list[msgspec.Raw], json_schema(minItems=1, **each_item(*_INSTANCE))]


class DispatchFields(Struct, kw_only=True):
    """The fields by which a body on a generic route is dispatched."""

    inputs: msgspec.Raw | UnsetType = UNSET
    texts: msgspec.Raw | UnsetType = UNSET
    model: str | None = None


class SparseValue(Struct):
    """A token id and its weight, which is above 0."""

    index: int
    value: Number


class Rank(Struct):
    """A text's index and score, and with ``return_text`` the text."""

    index: int
    score: float
    text: str | UnsetType = UNSET


class Token(Struct):
    """A token. ``start`` and ``stop`` are byte offsets; special tokens have none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class VertexReply(Struct):
    """The answer to each instance."""

    predictions: list[msgspec.Raw]


class ModelHealth(Struct, kw_only=True):
    """The state of one model."""

    name: EngineName
    status: str
    model_loaded: bool
    model_name: str
    device: str


class ServerInfo(Struct):
    """The server's name and version."""

    name: str
    version: str


class HealthReply(Struct, kw_only=True):
    """The body of GET /health on a healthy server, with TEI's, Infinity's and embed-rerank's fields.

    ``backend`` is the embedding model. ``unix`` and ``timestamp`` are the same time.
    """

    status: str
    uptime: float
    timestamp: float
    unix: float
    service: ServerInfo
    backend: ModelHealth | UnsetType = UNSET
    reranker: ModelHealth | UnsetType = UNSET


class Welcome(Struct):
    """The body of GET /."""

    message: str
    version: str
    docs: str
