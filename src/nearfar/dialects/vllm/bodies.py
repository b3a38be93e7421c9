"""The bodies of vLLM's and Infinity's requests and answers. Null means absent; unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from msgspec import Meta, Struct

from nearfar.dialects.kit.route_docs import NOT_BLANK, RowsOfNumbers, json_schema

_T = TypeVar("_T")
_NOT_EMPTY = json_schema(minItems=1)
Texts = str | Annotated[list[str], _NOT_EMPTY]
NotEmptyTexts = Annotated[str, json_schema(minLength=1)] | Annotated[list[str], _NOT_EMPTY]
TokenId = Annotated[int, json_schema(minimum=0)]


class Scoring(Struct, kw_only=True):
    """What requests for scores have in common. ``activation`` is the older name of ``use_activation``."""

    model: str | None = None
    use_activation: bool | None = None
    activation: bool | None = None

    @property
    def wants_logits(self) -> bool:
        """Return whether scores are wanted without the activation."""
        return False in {self.use_activation, self.activation}


class PairScoring(Scoring, kw_only=True):
    """What requests for the scores of pairs have in common."""

    max_tokens_per_doc: Annotated[int, Meta(ge=0)] | None = None
    truncate_prompt_tokens: Annotated[int, json_schema(const=-1)] | None = None


class ScoreRequest(PairScoring, kw_only=True):
    """The body of POST /score; the two sides may have any of four pairs of names."""

    text_1: Texts | None = None
    text_2: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None


SCORE_SIDES = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


class ClassifyRequest(Scoring, kw_only=True):
    """The body of POST /classify. ``raw_scores`` is Infinity's, the opposite of vLLM's ``use_activation``."""

    input: NotEmptyTexts
    raw_scores: bool | None = None


class PoolingRequest(Struct, kw_only=True):
    """The body of POST /pooling."""

    model: str | None = None
    input: NotEmptyTexts
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


class ContentPart(Struct, kw_only=True):
    """A part of a multimodal text or document; only text is supported."""

    type: str = "text"
    text: str | None = None


class Content(Struct, kw_only=True):
    """A text or document as an object with ``text``, or ``content``, which is a string or parts."""

    text: str | None = None
    content: str | list[ContentPart] | None = None


_PARTS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {"required": ["text"], "properties": {"text": NOT_BLANK, "type": {"const": "text"}}},
}
_WITH_PARTS: dict[str, Any] = {"type": "object", "required": ["content"], "properties": {"content": _PARTS}}
_WITH_TEXT: dict[str, Any] = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": NOT_BLANK, "content": {"type": ["string", "null"]}},
}
_WITH_CONTENT: dict[str, Any] = {
    "type": "object",
    "required": ["content"],
    "properties": {"content": NOT_BLANK, "text": {"type": "null"}},
}
_TEXT: dict[str, Any] = {"anyOf": [NOT_BLANK, _WITH_PARTS, _WITH_TEXT, _WITH_CONTENT]}
_TEXT_LIST: dict[str, Any] = {"type": "array", "minItems": 1, "items": _TEXT}
_DOCUMENTS: dict[str, Any] = {"anyOf": [_TEXT_LIST, _WITH_PARTS, _WITH_TEXT, _WITH_CONTENT]}


class RerankRequest(PairScoring, kw_only=True):
    """The body of POST /rerank.

    One object as ``documents`` contains a document in each part of its ``content``. ``top_n`` 0 means all, as in vLLM.
    ``raw_scores`` is Infinity's, the opposite of vLLM's ``use_activation``. ``return_documents`` has no effect; see
    ``RerankResult``. ``instruction`` is an addition, for rerankers that are language models.
    """

    query: Annotated[str | Content, json_schema(allOf=[_TEXT])]
    documents: Annotated[list[str | Content] | Content, json_schema(allOf=[_DOCUMENTS])]
    top_n: Annotated[int, Meta(ge=0)] | None = None
    return_documents: bool | None = None
    raw_scores: bool | None = None
    instruction: str | None = None


class UsageInfo(Struct):
    """Tokens that the model processed."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: None = None


class ListReply(Struct, Generic[_T], kw_only=True):
    """The body of an answer with an item for each input, in the request's order."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[_T]
    usage: UsageInfo


class ScoreData(Struct, kw_only=True):
    """A pair's score."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ClassificationData(Struct):
    """A text's most probable label, and the probabilities of all labels."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class PoolingData(Struct):
    """A text's vectors, one for each token."""

    index: int
    data: RowsOfNumbers
    object: Literal["pooling"] = "pooling"


class InfinityLabel(Struct):
    """A label's score, as Infinity reports it."""

    score: float
    label: str


class InfinityClassifyReply(Struct, kw_only=True):
    """The body of Infinity's answer to /classify: the labels of each text, the most probable first."""

    object: str = "classify"
    data: list[list[InfinityLabel]]
    model: str
    usage: UsageInfo
    id: str
    created: int


class TokenizeReply(Struct):
    """The body of an answer to /tokenize. ``token_strs`` are the tokens as in the vocabulary, if requested."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeReply(Struct):
    """The body of an answer to /detokenize."""

    prompt: str


class RerankResult(Struct):
    """A document's index and score.

    It has no ``document``, whatever ``return_documents`` requests. Clients that send the same request want it as a
    string (LiteLLM's infinity), as an object (LiteLLM's hosted_vllm) or as anything but null, and each fails on the
    others' form. All of them accept its absence: they have the documents that they sent.
    """

    index: int
    relevance_score: float


class RerankReply(Struct, kw_only=True):
    """The body of an answer to /rerank, best first. ``data`` repeats ``results`` for clients of Voyage's form."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    results: list[RerankResult]
    data: list[RerankResult]
    usage: UsageInfo
