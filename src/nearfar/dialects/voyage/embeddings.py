"""Voyage's embeddings, and NVIDIA's, which differ in a few fields and are sent to the shared paths."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Annotated, cast, get_args

from msgspec import UNSET, Struct, UnsetType

from nearfar.core import errors
from nearfar.core.jobs import Embedded, EmbedJob
from nearfar.core.settings import OnOverflow
from nearfar.core.types import KeepSide, Role
from nearfar.dialects.kit.checks import TRUNCATE, check_at_most, require_model
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import Dtype, EmbeddingList, Encoding, embedding_list, render_rows
from nearfar.dialects.kit.route_docs import NOT_EMPTY, AtLeastOne, NotEmpty, RouteDocs, json_schema, requires
from nearfar.serving.service import Service

_MAX_INPUTS = 2048  # Voyage's is 1,000; more breaks no client
_ROLES: dict[str, Role] = {"query": "query", "document": "document", "passage": "document"}  # the last is NVIDIA's
_DTYPES: tuple[Dtype, ...] = ("float", "int8", "uint8", "binary", "ubinary")
_ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)


class VoyageEmbeddingsRequest(Struct, kw_only=True):
    """The body of POST /voyage/v1/embeddings. Null means absent; other fields are ignored.

    ``truncate`` is NVIDIA's. ``dimensions`` is NVIDIA's and OpenAI's name for ``output_dimension``.
    """

    model: str | None = None
    input: NotEmpty | Annotated[list[NotEmpty], json_schema(minItems=1, maxItems=_MAX_INPUTS)]
    input_type: Annotated[str, json_schema(enum=list(_ROLES))] | None = None
    truncation: bool | None = None
    output_dimension: AtLeastOne | None = None
    output_dtype: Annotated[str, json_schema(enum=list(_DTYPES))] | None = None
    encoding_format: Annotated[str, json_schema(enum=list(_ENCODINGS))] | None = None
    truncate: Annotated[str, json_schema(enum=[value for value in TRUNCATE if value])] | bool | None = None
    dimensions: AtLeastOne | None = None


class VoyageUsage(Struct, kw_only=True):
    """Tokens that the model read; OpenAI's clients need ``prompt_tokens``."""

    prompt_tokens: int | UnsetType = UNSET
    total_tokens: int


_DOCS = RouteDocs(
    summary="Vectors of queries or documents, as floats, bytes or bits",
    body=requires(VoyageEmbeddingsRequest, model=NOT_EMPTY),
    reply=EmbeddingList[VoyageUsage],
    example={"model": "voyage-3.5", "input_type": "query", "input": ["Where is the cat?"], "output_dtype": "int8"},
)


def _to_job(body: VoyageEmbeddingsRequest) -> EmbedJob:
    check_choice("output_dtype", body.output_dtype, _DTYPES)
    check_choice("encoding_format", body.encoding_format, _ENCODINGS)
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts or "" in texts:
        raise errors.EmptyInput("Input cannot contain empty strings or empty lists", "input")
    check_at_most(_MAX_INPUTS, "input", texts)
    check_choice("input_type", body.input_type, _ROLES)
    on_overflow, keep = _overflow(body)
    return EmbedJob(
        model=require_model(body.model),
        inputs=tuple(texts),
        dimensions=body.dimensions if body.output_dimension is None else body.output_dimension,
        role=_ROLES[body.input_type] if body.input_type else None,
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
SHARED_EMBEDDINGS = Endpoint(_DOCS, _to_job, Service.embed, partial(_reply, is_shared=True))
