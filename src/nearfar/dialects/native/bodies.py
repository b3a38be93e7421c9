"""The bodies of our own requests and answers, and an example of each."""

from __future__ import annotations

from typing import Annotated, Literal, get_type_hints

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nearfar.core.types import ModelInfo, ModelState, Output
from nearfar.dialects.kit.request import MAX_INPUTS
from nearfar.dialects.kit.route_docs import Numbers, RowsOfNumbers, json_schema
from nearfar.serving.pipeline.tokenizer_pool import WORKERS


class ModelOrder(Struct, kw_only=True):
    """The body of an admin call: the model's name or one of its aliases."""

    model: str


class RepresentRequest(Struct, kw_only=True):
    """The body of POST /represent. ``outputs`` names what is wanted of all that the model makes; None for all."""

    input: str | Annotated[list[str], json_schema(minItems=1)]
    model: str | None = None
    outputs: list[Output] | None = None
    input_type: Literal["query", "document"] | None = None
    prompt_name: str | None = None


class Sparse(Struct):
    """The weights above 0 of a vector of ``size``, and where they stand."""

    indices: Annotated[msgspec.Raw, json_schema(type="array", items={"type": "integer"})]
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


class Pooling(Struct):
    """How an embedding model makes one vector of many."""

    pooling: str


class Labels(Struct):
    """The labels of a classifier and their places; a reranker has one."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(Struct, kw_only=True):
    """What a model is for: one of these."""

    embedding: Pooling | UnsetType = UNSET
    reranker: Labels | UnsetType = UNSET
    classifier: Labels | UnsetType = UNSET


class TheModel(Struct, kw_only=True):
    """TEI's words for the default model.

    ``max_concurrent_requests`` is how many of the longest inputs may wait or run at once; of shorter ones it is more.
    ``max_batch_tokens`` is null while the model isn't in memory.
    """

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int | None
    max_batch_requests: None = None
    max_client_batch_size: int = MAX_INPUTS
    auto_truncate: bool
    tokenization_workers: int = WORKERS
    sha: None = None
    docker_label: None = None


class EarlyInfoReply(Struct, kw_only=True):
    """The body of GET /info before the models' files are read."""

    name: str
    version: str
    models: Annotated[list[ServedModel], json_schema(maxItems=0)]  # type: ignore[valid-type]


class InfoReply(TheModel, kw_only=True):
    """The body of GET /info."""

    name: str
    version: str
    models: list[ServedModel]  # type: ignore[valid-type]


class ErrorReply(Struct):
    """What went wrong: the name of its kind, and a sentence."""

    error: str
    message: str
