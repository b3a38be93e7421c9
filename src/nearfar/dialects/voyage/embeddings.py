"""Voyage's embeddings, and NVIDIA's, which differ in a few fields and are sent to the shared paths."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Annotated, Any, cast, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nearfar.core import errors
from nearfar.core.jobs import Embedded, EmbedJob
from nearfar.core.settings import OnOverflow
from nearfar.core.types import KeepSide, Role, TokenIds
from nearfar.dialects.kit.checks import TRUNCATE, Inputs, check_at_most, parse_inputs, require_model
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import Dtype, EmbeddingList, Encoding, embedding_list, render_rows
from nearfar.dialects.kit.route_docs import NOT_EMPTY, AtLeastOne, NotEmpty, RouteDocs, json_schema, requires
from nearfar.models.files.tokenizer.openai_tokens import find_vocabulary
from nearfar.serving.service import Service

_MAX_INPUTS = 2048  # Voyage's is 1,000; more breaks no client
ROLES: dict[str, Role] = {"query": "query", "document": "document", "passage": "document"}  # the last is NVIDIA's
DTYPES: tuple[Dtype, ...] = ("float", "int8", "uint8", "binary", "ubinary")
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)


_IDS: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_INPUTS: dict[str, Any] = {
    "anyOf": [NOT_EMPTY, _IDS, *({"type": "array", "items": item, "minItems": 1} for item in (NOT_EMPTY, _IDS))]
}


class VoyageEmbeddingsRequest(Struct, kw_only=True):
    """The body of POST /voyage/v1/embeddings. Null means absent; other fields are ignored.

    ``truncate`` is NVIDIA's. ``dimensions`` is NVIDIA's and OpenAI's name for ``output_dimension``.
    """

    model: str | None = None
    input: NotEmpty | Annotated[list[NotEmpty], json_schema(minItems=1, maxItems=_MAX_INPUTS)]
    input_type: Annotated[str, json_schema(enum=list(ROLES))] | None = None
    truncation: bool | None = None
    output_dimension: AtLeastOne | None = None
    output_dtype: Annotated[str, json_schema(enum=list(DTYPES))] | None = None
    encoding_format: Annotated[str, json_schema(enum=list(ENCODINGS))] | None = None
    truncate: Annotated[str, json_schema(enum=[value for value in TRUNCATE if value])] | bool | None = None
    dimensions: AtLeastOne | None = None


class SharedEmbeddingsRequest(VoyageEmbeddingsRequest, kw_only=True):
    """The body on the shared paths, which OpenAI's client also sends to NVIDIA's servers.

    Its input may be token ids, with ``token_ids`` as in OpenAI's protocol, and the only model needs no name.
    """

    input: Annotated[Inputs, json_schema(allOf=[_INPUTS])]  # type: ignore[assignment]
    token_ids: Annotated[str, json_schema(enum=["openai", "model"])] | None = None


class VoyageUsage(Struct, kw_only=True):
    """Tokens that the model read; OpenAI's clients need ``prompt_tokens``."""

    prompt_tokens: int | UnsetType = UNSET
    total_tokens: int


_DOCS = RouteDocs(
    summary="Vectors of queries or documents, as floats, bytes or bits",
    answers=("vectors",),
    body=requires(VoyageEmbeddingsRequest, model=NOT_EMPTY),
    reply=EmbeddingList[VoyageUsage],
    example={"model": "voyage-3.5", "input_type": "query", "input": ["Where is the cat?"], "output_dtype": "int8"},
)


def _to_job(body: VoyageEmbeddingsRequest) -> EmbedJob:
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts or "" in texts:
        raise errors.EmptyInput("Input cannot contain empty strings or empty lists", "input")
    return _build_job(body, tuple(texts), require_model(body.model))


def _to_shared_job(body: SharedEmbeddingsRequest) -> EmbedJob:
    inputs = parse_inputs(body.input)
    if "" in inputs:
        raise errors.EmptyInput("Input cannot contain empty strings or empty lists", "input")
    job = _build_job(body, inputs, body.model or "")
    if isinstance(inputs[0], str):
        return job
    check_choice("token_ids", body.token_ids, ("openai", "model"))
    vocabulary = None if body.token_ids == "model" else find_vocabulary(body.model or "")  # noqa: S105 — no password
    return msgspec.structs.replace(job, vocabulary=vocabulary, vocabulary_is_default=body.token_ids is None)


def _build_job(body: VoyageEmbeddingsRequest, inputs: tuple[str | TokenIds, ...], model: str) -> EmbedJob:
    check_choice("output_dtype", body.output_dtype, DTYPES)
    check_choice("encoding_format", body.encoding_format, ENCODINGS)
    check_at_most(_MAX_INPUTS, "input", inputs)
    check_choice("input_type", body.input_type, ROLES)
    on_overflow, keep = _overflow(body)
    return EmbedJob(
        model=model,
        inputs=inputs,
        dimensions=body.dimensions if body.output_dimension is None else body.output_dimension,
        role=ROLES[body.input_type] if body.input_type else None,
        on_overflow=on_overflow,
        keep=keep,
    )


def _overflow(body: VoyageEmbeddingsRequest) -> tuple[OnOverflow | None, KeepSide]:
    """Return how to handle a text that is too long: None leaves it to the operator's setting."""
    truncation = body.truncate if body.truncation is None and isinstance(body.truncate, bool) else body.truncation
    if truncation is not None:
        return ("truncate" if truncation else "error"), "start"
    truncate = body.truncate if isinstance(body.truncate, str) else None
    check_choice("truncate", truncate, [known for known in TRUNCATE if known])
    return TRUNCATE[truncate]


def check_choice(param: str, value: str | None, choices: Collection[str]) -> None:
    """Raise InputError for a value that is none of the choices."""
    if value is not None and value not in choices:
        raise errors.InputError(f"must be one of {', '.join(choices)}, not {value[:50]!r}", param)


def _reply(
    body: VoyageEmbeddingsRequest, _: EmbedJob, done: Embedded, *, is_shared: bool = False
) -> EmbeddingList[VoyageUsage]:
    """Build the reply; on a shared path with ``prompt_tokens``, too, which OpenAI's clients need."""
    dtype = cast("Dtype", body.output_dtype or "float")
    rows = render_rows(done, dtype, cast("Encoding", body.encoding_format or "float"))
    tokens = done.usage.tokens
    return embedding_list(done, rows, VoyageUsage(prompt_tokens=tokens if is_shared else UNSET, total_tokens=tokens))


EMBEDDINGS = Endpoint(_DOCS, _to_job, Service.embed, _reply)
_SHARED_DOCS: RouteDocs = msgspec.structs.replace(_DOCS, body=SharedEmbeddingsRequest)
SHARED_EMBEDDINGS = Endpoint(_SHARED_DOCS, _to_shared_job, Service.embed, partial(_reply, is_shared=True))
