"""llama.cpp's own forms of embedding and tokenizing. Its other routes have OpenAI's and Jina's forms."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from nearfar.core.errors import InputError
from nearfar.core.jobs import Embedded, EmbedJob, TokenizedText
from nearfar.dialects.kit.checks import Inputs, parse_inputs
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import render_array
from nearfar.dialects.kit.route_docs import RouteDocs, RowsOfNumbers, json_schema, requires_any
from nearfar.dialects.vllm.routes import NotEmptyInputs
from nearfar.serving.service import Service


class EmbeddingRequest(Struct, kw_only=True):
    """The body of POST /embedding; ``input`` is another name of ``content``. Other than 2, ``embd_normalize`` is -1."""

    content: NotEmptyInputs | None = None
    input: NotEmptyInputs | None = None
    embd_normalize: Annotated[int, json_schema(enum=[-1, 2])] | None = None
    model: str | None = None


class EmbeddingItem(Struct):
    """A text's vector, as the only row of a list."""

    index: int
    embedding: RowsOfNumbers


class Piece(Struct):
    """A token's id and its text."""

    id: int
    piece: str


class TokensReply(Struct):
    """The body of the answer to /tokenize with ``content``: ids, or with ``with_pieces`` also the texts."""

    tokens: list[int | Piece]


def _embedding_job(body: EmbeddingRequest) -> EmbedJob:
    found: Inputs | None = body.input if body.content is None else body.content
    if found is None:
        raise InputError("content is required, or input")
    if body.embd_normalize not in {None, -1, 2}:
        raise InputError(f"embd_normalize must be 2 for unit length or -1 for none, not {body.embd_normalize}")
    normalize = None if body.embd_normalize is None else body.embd_normalize == 2  # noqa: PLR2004 — the Euclidean norm
    return EmbedJob(model=body.model or None, inputs=parse_inputs(found), vocabulary=None, normalize=normalize)


def _embedding_reply(_: EmbeddingRequest, __: EmbedJob, done: Embedded) -> list[EmbeddingItem]:
    return [EmbeddingItem(index, render_array(vector[None])) for index, vector in enumerate(done.vectors)]


def tokens_reply(shown: TokenizedText, *, with_pieces: bool) -> TokensReply:
    """Return the tokens as llama.cpp does: their ids, or with each its text."""
    if with_pieces:
        return TokensReply([Piece(one.id, shown.text[one.start : one.stop] or one.token) for one in shown.tokens])
    return TokensReply([one.id for one in shown.tokens])


_EMBEDDING = RouteDocs(
    summary="Embed texts, as in llama.cpp",
    answers=("vectors",),
    body=requires_any(EmbeddingRequest, {"content": {"not": {"type": "null"}}}, {"input": {"not": {"type": "null"}}}),
    reply=list[EmbeddingItem],
    example={"content": "a cat on the sofa"},
    reply_example=[{"index": 0, "embedding": [[0.1431, -0.0766, -0.0241]]}],
)
EMBEDDING = Endpoint(_EMBEDDING, _embedding_job, Service.embed, _embedding_reply)
