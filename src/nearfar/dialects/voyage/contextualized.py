"""Voyage's embeddings of chunks in the context of their documents, by late chunking."""

from __future__ import annotations

from typing import Annotated, cast

from msgspec import Struct

from nearfar.core import errors
from nearfar.core.caller import Caller
from nearfar.core.jobs import Embedded, EmbedJob
from nearfar.dialects.kit.checks import check_at_most, require_model
from nearfar.dialects.kit.combined import MAX_JOBS, CombinedResult, combine, run_all
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import Dtype, EmbeddingItem, Encoding, TotalTokens, render_rows
from nearfar.dialects.kit.route_docs import NOT_EMPTY, AtLeastOne, NotEmpty, RouteDocs, json_schema, requires
from nearfar.dialects.voyage.embeddings import DTYPES, ENCODINGS, ROLES, check_choice
from nearfar.serving.service import Service

_SOME = json_schema(minItems=1)


class ContextualizedRequest(Struct, kw_only=True):
    """The body of POST /voyage/v1/contextualizedembeddings: for each document the list of its chunks, in order.

    A list of one text, such as a query, is embedded as usual.
    """

    model: str | None = None
    inputs: Annotated[list[Annotated[list[NotEmpty], _SOME]], _SOME]
    input_type: Annotated[str, json_schema(enum=list(ROLES))] | None = None
    output_dimension: AtLeastOne | None = None
    output_dtype: Annotated[str, json_schema(enum=list(DTYPES))] | None = None
    encoding_format: Annotated[str, json_schema(enum=list(ENCODINGS))] | None = None


class DocumentItem(Struct, kw_only=True):
    """The vectors of a document's chunks."""

    object: Annotated[str, json_schema(const="list")] = "list"
    data: list[EmbeddingItem]
    index: int


class ContextualizedReply(Struct, kw_only=True):
    """The body of a response, in the order of the request."""

    object: Annotated[str, json_schema(const="list")] = "list"
    data: list[DocumentItem]
    model: str
    usage: TotalTokens


def _to_jobs(body: ContextualizedRequest) -> list[EmbedJob]:
    check_choice("output_dtype", body.output_dtype, DTYPES)
    check_choice("encoding_format", body.encoding_format, ENCODINGS)
    check_choice("input_type", body.input_type, ROLES)
    check_at_most(MAX_JOBS, "inputs", body.inputs)
    if not body.inputs or any(not chunks or "" in chunks for chunks in body.inputs):
        raise errors.EmptyInput("Input cannot contain empty strings or empty lists", "inputs")
    return [
        EmbedJob(
            model=require_model(body.model),
            inputs=tuple(chunks),
            dimensions=body.output_dimension,
            role=ROLES[body.input_type] if body.input_type else None,
            late_chunking=len(chunks) > 1,
        )
        for chunks in body.inputs
    ]


async def _embed_all(service: Service, jobs: list[EmbedJob], caller: Caller) -> CombinedResult[Embedded]:
    return combine(await run_all(service.embed, jobs, caller))


def _reply(body: ContextualizedRequest, _: list[EmbedJob], done: CombinedResult[Embedded]) -> ContextualizedReply:
    dtype, encoding = cast("Dtype", body.output_dtype or "float"), cast("Encoding", body.encoding_format or "float")
    rows = [render_rows(one, dtype, encoding) for one in done.results]
    data = [
        DocumentItem(data=[EmbeddingItem(index=at, embedding=row) for at, row in enumerate(each)], index=index)
        for index, each in enumerate(rows)
    ]
    return ContextualizedReply(data=data, model=done.info.name, usage=TotalTokens(done.usage.tokens))


_DOCS = RouteDocs(
    summary="Vectors of chunks that know their documents",
    answers=("vectors",),
    body=requires(ContextualizedRequest, model=NOT_EMPTY),
    reply=ContextualizedReply,
    example={"model": "voyage-context-3", "inputs": [["The cat sat.", "It purred."], ["Where is the cat?"]]},
)
CONTEXTUALIZED = Endpoint(_DOCS, _to_jobs, _embed_all, _reply)
