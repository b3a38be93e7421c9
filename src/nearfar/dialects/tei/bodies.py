"""The bodies of TEI's requests and answers.

TEI serves one model, so ``model`` is ours everywhere: absent, it is the default one of the task. Null means absent, and
fields that aren't named here are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nearfar.dialects.kit.route_docs import NOT_BLANK, AtLeastOne, NotBlank, each_item, json_schema

_IDS: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_TEXTS: dict[str, Any] = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_INPUTS: dict[str, Any] = {
    "description": "A text, or a text's token ids in the model's own vocabulary; or several of either",
    "anyOf": [
        {"type": "string"},
        _IDS,
        {"type": "array", "items": {"anyOf": [{"type": "string"}, _IDS]}, "minItems": 1},
    ],
}
_SEQUENCES: dict[str, Any] = {
    "description": "A text, a pair of texts, or several of either, each in a list of its own",
    "anyOf": [
        {"type": "string"},
        {**_TEXTS, "maxItems": 2},
        {
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {**_TEXTS, "maxItems": 2}]},
            "contains": {"type": "array"},
        },
    ],
}
_DIRECTIONS: dict[str, Any] = {"enum": ["Left", "left", "Right", "right"], "description": "The side that is cut"}
_SOME = json_schema(minItems=1)

Direction = Annotated[str, json_schema(**_DIRECTIONS)]
Inputs = Annotated[msgspec.Raw, json_schema(**_INPUTS)]
Number = Annotated[msgspec.Raw, json_schema(type="number")]


class EmbedAllRequest(Struct, kw_only=True):
    """The body of POST /embed_all and /embed_sparse. The prompt ``query`` says that the texts are queries."""

    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Direction | None = None
    prompt_name: str | None = None
    model: str | None = None


class EmbedRequest(EmbedAllRequest, kw_only=True):
    """The body of POST /embed."""

    normalize: bool | None = None
    dimensions: AtLeastOne | None = None


class RerankRequest(Struct, kw_only=True):
    """The body of POST /rerank. ``top_k`` isn't TEI's: servers that speak its protocol have it."""

    query: NotBlank
    texts: Annotated[list[str], _SOME]
    truncate: bool | None = None
    truncation_direction: Direction | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None
    top_k: AtLeastOne | None = None
    model: str | None = None


class LabelParameters(Struct, kw_only=True):
    """What Hugging Face's inference clients say about labels: how scores come about, and how many are wanted."""

    function_to_apply: Annotated[str, json_schema(enum=["none"])] | None = None
    top_k: AtLeastOne | None = None


class PredictRequest(Struct, kw_only=True):
    """The body of POST /predict: a text, a list of one or two for a pair, or several of either, each in a list.

    ``parameters`` is what tells Hugging Face's clients from TEI's: they want a list around the labels of a single text.
    """

    inputs: Annotated[msgspec.Raw, json_schema(**_SEQUENCES)]
    truncate: bool | None = None
    truncation_direction: Direction | None = None
    raw_scores: bool | None = None
    parameters: LabelParameters | None = None
    model: str | None = None


class Sentences(Struct, kw_only=True):
    """One text, and those to compare it with."""

    source_sentence: str
    sentences: Annotated[list[str], _SOME]


class Parameters(Struct, kw_only=True):
    """How texts are cut and prompted."""

    truncate: bool | None = None
    truncation_direction: Direction | None = None
    prompt_name: str | None = None


class SimilarityRequest(Struct, kw_only=True):
    """The body of POST /similarity."""

    inputs: Sentences
    parameters: Parameters | None = None
    model: str | None = None


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /tokenize."""

    inputs: str | Annotated[list[str], _SOME]
    add_special_tokens: bool | None = None
    prompt_name: str | None = None
    model: str | None = None


class DecodeRequest(Struct, kw_only=True):
    """The body of POST /decode: the ids of one text, or of several."""

    ids: Annotated[
        list[int | list[int]],
        json_schema(anyOf=[_IDS, {"type": "array", "items": {**_IDS, "minItems": 0}, "minItems": 1}]),
    ]
    skip_special_tokens: bool | None = None
    model: str | None = None


_MEANT: list[dict[str, Any]] = [
    {"type": "object", "required": ["inputs"], "properties": {"inputs": _INPUTS, "texts": {"type": "null"}}},
    {"type": "object", "required": ["query", "texts"], "properties": {"query": NOT_BLANK, "texts": _TEXTS}},
]


class VertexRequest(Struct, kw_only=True):
    """The body of POST /vertex: bodies of requests to embed, to rerank or to classify."""

    instances: Annotated[list[msgspec.Raw], json_schema(minItems=1, **each_item(*_MEANT))]


class Meant(Struct, kw_only=True):
    """What tells of a body without a route of its own whose it is."""

    inputs: msgspec.Raw | UnsetType = UNSET
    texts: msgspec.Raw | UnsetType = UNSET
    model: str | None = None


class SparseValue(Struct):
    """One weight above 0, and its place in the vocabulary."""

    index: int
    value: Number


class Rank(Struct):
    """One text's place and score; the text itself where it was asked for."""

    index: int
    score: float
    text: str | UnsetType = UNSET


class Prediction(Struct):
    """One label of a text."""

    score: float
    label: str


class Token(Struct):
    """One token of a text; special ones lie nowhere."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class VertexReply(Struct):
    """What the route of each instance would have answered."""

    predictions: list[msgspec.Raw]


class WorkingModel(Struct, kw_only=True):
    """One model at work."""

    name: str
    status: str
    model_loaded: bool
    model_name: str
    device: str


class AboutServer(Struct):
    """Which server this is."""

    name: str
    version: str


class HealthReply(Struct, kw_only=True):
    """The body of GET /health where all is well: ``backend`` embeds and ``reranker`` ranks.

    ``unix`` and ``timestamp`` are the same moment.
    """

    status: str
    uptime: float
    timestamp: float
    unix: float
    service: AboutServer
    backend: WorkingModel | UnsetType = UNSET
    reranker: WorkingModel | UnsetType = UNSET


class Welcome(Struct):
    """The body of GET /."""

    message: str
    version: str
    docs: str
