"""The bodies of the server's own requests and answers. Null means absent; unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Literal, get_type_hints

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nearfar.core.types import ModelInfo, ModelState, Output
from nearfar.dialects.kit.request import MAX_INPUTS
from nearfar.dialects.kit.route_docs import Numbers, RowsOfNumbers, json_schema
from nearfar.serving.pipeline.encoding import WORKERS


class ModelRequest(Struct, kw_only=True):
    """The body of an admin request: the model's name or one of its aliases."""

    model: str


class RepresentRequest(Struct, kw_only=True):
    """The body of POST /represent. Without ``outputs`` all outputs of the model are returned."""

    input: str | Annotated[list[str], json_schema(minItems=1)]
    model: str | None = None
    outputs: list[Output] | None = None
    input_type: Literal["query", "document"] | None = None
    prompt_name: str | None = None


class Sparse(Struct):
    """The weights above 0 of a vector with ``size`` dimensions, and their indices."""

    indices: Annotated[msgspec.Raw, json_schema(type="array", items={"type": "integer"})]
    values: Numbers
    size: int


class TextRepresentation(Struct, kw_only=True, omit_defaults=True):
    """A text's outputs."""

    index: int
    dense: Numbers | UnsetType = UNSET
    multi_vector: RowsOfNumbers | UnsetType = UNSET
    sparse: Sparse | UnsetType = UNSET


class TokenUsage(Struct):
    """Tokens that the model processed, and tokens truncated before."""

    tokens: int
    truncated_tokens: int


class RepresentReply(Struct, kw_only=True):
    """The body of an answer to /represent, in the request's order."""

    model: str
    data: list[TextRepresentation]
    usage: TokenUsage


class Health(Struct):
    """The body of GET /health/live and /health/ready."""

    status: Literal["live", "ready"]


ServedModel = msgspec.defstruct(
    "ServedModel",
    [*{**get_type_hints(ModelInfo), **get_type_hints(ModelState)}.items()],
    namespace={"__doc__": "A served model, and whether it is loaded."},
)


class Pooling(Struct):
    """An embedding model's pooling."""

    pooling: str


class Labels(Struct):
    """A classifier's labels; a reranker has one."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(Struct, kw_only=True):
    """A model's type: one of these fields is set."""

    embedding: Pooling | UnsetType = UNSET
    reranker: Labels | UnsetType = UNSET
    classifier: Labels | UnsetType = UNSET


class TeiInfo(Struct, kw_only=True):
    """The default model as TEI describes its only one.

    ``max_concurrent_requests`` is the number of inputs of the greatest length that fit into the queue.
    ``max_batch_tokens`` is null while the model isn't loaded.
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


class StartupInfoReply(Struct, kw_only=True):
    """The body of GET /info before the models' files are read."""

    name: str
    version: str
    models: Annotated[list[ServedModel], json_schema(maxItems=0)]  # type: ignore[valid-type]


class InfoReply(TeiInfo, kw_only=True):
    """The body of GET /info."""

    name: str
    version: str
    models: list[ServedModel]  # type: ignore[valid-type]


class ErrorReply(Struct):
    """The body of every error: its class and a message."""

    error: str
    message: str
