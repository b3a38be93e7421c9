"""vLLM's routes for pairs and labels, and Infinity's form of them. Null means absent; unknown fields are ignored."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Generic, Literal, TypeVar

from msgspec import Meta, Struct

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import Classified, ClassifyJob, Result, Scored, ScoreJob
from nearfar.dialects.kit.body.chat import ChatInput
from nearfar.dialects.kit.checks import Activation, Inputs
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import LabelScore, sorted_labels
from nearfar.dialects.kit.route_docs import NOT_EMPTY, RouteDocs, json_schema, requires
from nearfar.dialects.vllm.content import DOCUMENTS, Content, texts_of
from nearfar.serving.service import Service

_T = TypeVar("_T")
_NOT_EMPTY = json_schema(minItems=1)
Texts = str | Annotated[list[str | Content], _NOT_EMPTY] | Content
_IDS: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
INPUTS: dict[str, Any] = {
    "description": "A text, texts, or token ids in the model's own vocabulary of one text or of several",
    "anyOf": [
        NOT_EMPTY,
        _IDS,
        *({"type": "array", "items": item, "minItems": 1} for item in ({"type": "string"}, _IDS)),
    ],
}
RequestId = Annotated[str, Meta(max_length=128)]
NotEmptyInputs = Annotated[Inputs, json_schema(allOf=[INPUTS])]


class PairScoring(Activation, kw_only=True):
    """What requests for the scores of pairs have in common. 0 is no limit."""

    model: str | None = None
    request_id: RequestId | None = None
    max_tokens_per_doc: Annotated[int, json_schema(minimum=0)] | None = None
    max_tokens_per_query: Annotated[int, json_schema(minimum=0)] | None = None

    def limits(self) -> dict[str, Any]:
        """Return the fields of a job that decide what is cut. Raises InputError for a negative limit."""
        for name, limit in (
            ("max_tokens_per_doc", self.max_tokens_per_doc),
            ("max_tokens_per_query", self.max_tokens_per_query),
        ):
            if limit is not None and limit < 0:
                raise InputError(f"{name} must be a non-negative integer, not {limit}", name)
        return {
            "max_tokens_per_document": self.max_tokens_per_doc or None,
            "max_tokens_per_query": self.max_tokens_per_query or None,
            **self.truncation(),
        }


class ScoreRequest(PairScoring, kw_only=True):
    """The body of POST /score; the two sides may have any of four pairs of names.

    One object as a side contains a text in each part of its ``content``.
    """

    text_1: Texts | None = None
    text_2: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None


_SCORE_SIDES = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


class ClassifyRequest(ChatInput, kw_only=True):
    """The body of POST /classify. ``raw_scores`` is Infinity's, the opposite of vLLM's ``use_activation``."""

    model: str | None = None
    request_id: RequestId | None = None
    input: NotEmptyInputs | None = None
    raw_scores: bool | None = None


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


class InfinityClassifyReply(Struct, kw_only=True):
    """The body of Infinity's answer to /classify: the labels of each text, the most probable first."""

    object: str = "classify"
    data: list[list[LabelScore]]
    model: str
    usage: UsageInfo
    id: str
    created: int


def envelope(kind: str, done: Result, request_id: str | None) -> dict[str, Any]:
    """Return the fields that all of vLLM's replies have. The id ends with the request's own, if it has one."""
    return {
        "id": f"{kind}-{request_id or uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": done.info.name,
        "usage": UsageInfo(done.usage.tokens, done.usage.tokens),
    }


def _score_job(body: ScoreRequest) -> ScoreJob:
    first, second = _sides(body)
    return ScoreJob(
        model=body.model or None,
        pairs=tuple(zip(first * len(second) if len(first) == 1 else first, second, strict=True)),
        raw_scores=body.wants_logits,
        **body.limits(),
    )


def _sides(body: ScoreRequest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the two sides under whichever names they have. Raises InputError if they can't be paired."""
    names = next((pair for pair in _SCORE_SIDES if None not in [getattr(body, name) for name in pair]), None)
    if names is None:
        raise InputError("text_1 and text_2 are required, or queries with documents or items")
    first, second = (texts_of(getattr(body, name), name) for name in names)
    if len(first) > 1 and len(first) != len(second):
        raise InputError("Input lengths must be either 1:1, 1:N or N:N")
    if not first:
        raise EmptyInput("At least one text element must be given")
    if not second:
        raise EmptyInput("At least one text_pair element must be given")
    return first, second


def _score_reply(body: ScoreRequest, _: ScoreJob, done: Scored) -> ListReply[ScoreData]:
    data = [ScoreData(index=index, score=score) for index, score in enumerate(done.scores)]
    return ListReply(data=data, **envelope("score", done, body.request_id))


def _classify_job(body: ClassifyRequest) -> ClassifyJob:
    raw_scores = bool(body.raw_scores) or body.wants_logits
    return ClassifyJob(
        model=body.model or None,
        inputs=body.inputs(body.input),
        special=body.adds_special_tokens,
        raw_scores=raw_scores,
        **body.truncation(),
    )


def _classify_reply(
    body: ClassifyRequest, _: ClassifyJob, done: Classified
) -> ListReply[ClassificationData] | InfinityClassifyReply:
    ranked = sorted_labels(done)
    if body.raw_scores is not None:  # Infinity's client always sends it, vLLM's clients never do
        return InfinityClassifyReply(data=ranked, **envelope("classify", done, body.request_id))
    data = [
        ClassificationData(index, best[0].label, scores.tolist(), len(scores))
        for index, (best, scores) in enumerate(zip(ranked, done.scores, strict=True))
    ]
    return ListReply(data=data, **envelope("classify", done, body.request_id))


_SIDE = {"anyOf": [{"type": "string"}, *DOCUMENTS["anyOf"]]}
_ANY_SIDES = json_schema(
    properties={name: {"anyOf": [_SIDE, {"type": "null"}]} for sides in _SCORE_SIDES for name in sides},
    anyOf=[{"required": [*sides], "properties": dict.fromkeys(sides, _SIDE)} for sides in _SCORE_SIDES],
)
_SCORE = RouteDocs(
    summary="Compare the texts of each pair",
    answers=("scores",),
    body=Annotated[ScoreRequest, _ANY_SIDES],
    reply=ListReply[ScoreData],
    example={"text_1": "Where is the cat?", "text_2": ["The cat sat on the mat.", "Rates rose."]},
    examples={
        "queries and documents": {
            "queries": ["Where is the cat?"],
            "documents": ["The cat sat on the mat."],
            "use_activation": False,
        }
    },
)
SCORE = Endpoint(_SCORE, _score_job, Service.score, _score_reply)
_CLASSIFY = RouteDocs(
    summary="Classify texts",
    answers=("scores",),
    details="Returns each text's most probable label and all probabilities, or with ``raw_scores`` Infinity's form.",
    body=requires(ClassifyRequest, input=INPUTS),
    reply=(ListReply[ClassificationData], InfinityClassifyReply),
    example={"input": ["I like you."]},
    examples={"Infinity's": {"input": ["I like you."], "raw_scores": False}},
)
CLASSIFY = Endpoint(_CLASSIFY, _classify_job, Service.classify, _classify_reply)
