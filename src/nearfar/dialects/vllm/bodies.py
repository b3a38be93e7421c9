"""The bodies of vLLM's requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from nearfar.dialects.kit.route_docs import RowsOfNumbers, json_schema

_SOME = json_schema(minItems=1)
Texts = str | Annotated[list[str], _SOME]
SomeTexts = Annotated[str, json_schema(minLength=1)] | Annotated[list[str], _SOME]
TokenId = Annotated[int, json_schema(minimum=0)]


class ScoreRequest(Struct, kw_only=True):
    """The body of POST /score, in any of its four spellings. Null means absent; fields not named here are ignored.

    ``activation`` is what older versions call ``use_activation``.
    """

    model: str | None = None
    text_1: Texts | None = None
    text_2: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    max_tokens_per_doc: Annotated[int, Meta(ge=0)] | None = None
    truncate_prompt_tokens: Annotated[int, json_schema(const=-1)] | None = None


def _pair(first: str, second: str) -> dict[str, Any]:
    side = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1}]}
    return {"required": [first, second], "properties": {first: side, second: side}}


SCORE_SPELLINGS = json_schema(
    anyOf=[
        _pair("queries", "documents"),
        _pair("queries", "items"),
        _pair("data_1", "data_2"),
        _pair("text_1", "text_2"),
    ]
)


class ClassifyRequest(Struct, kw_only=True):
    """The body of POST /classify. Infinity's says ``raw_scores`` where vLLM's says ``use_activation``."""

    model: str | None = None
    input: SomeTexts
    use_activation: bool | None = None
    activation: bool | None = None
    raw_scores: bool | None = None


class PoolingRequest(Struct, kw_only=True):
    """The body of POST /pooling, for the vectors of a text's tokens."""

    model: str | None = None
    input: SomeTexts
    task: Annotated[str, json_schema(const="token_embed")] | None = None


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /tokenize for a plain prompt."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(Struct, kw_only=True):
    """The body of POST /detokenize."""

    model: str | None = None
    tokens: list[TokenId]


class DetokenizeReply(Struct):
    """The body of an answer to /detokenize."""

    prompt: str


class Score(Struct):
    """One pair's score."""

    index: int
    object: Literal["score"]
    score: float


class Tokens(Struct):
    """Tokens that went through the model."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: None = None


class ScoreReply(Struct, kw_only=True):
    """The body of an answer, in the order of the request."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Score]
    usage: Tokens


class Class(Struct):
    """One text's labels."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class LabelScore(Struct):
    """One label of a text, as Infinity says it."""

    score: float
    label: str


class LabelsReply(Struct, kw_only=True):
    """The body of Infinity's answer to /classify: the labels of each text, the likeliest first."""

    object: str = "classify"
    data: list[list[LabelScore]]
    model: str
    usage: Tokens
    id: str
    created: int


class Pooled(Struct):
    """One text's vectors."""

    index: int
    data: RowsOfNumbers
    object: Literal["pooling"] = "pooling"


class ClassifyReply(Struct, kw_only=True):
    """The body of an answer to /classify, in the order of the request."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Class]
    usage: Tokens


class PoolingReply(Struct, kw_only=True):
    """The body of an answer to /pooling, in the order of the request."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Pooled]
    usage: Tokens


class TokenizeReply(Struct):
    """The body of an answer to /tokenize. ``token_strs`` are the vocabulary's names, null unless asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None
