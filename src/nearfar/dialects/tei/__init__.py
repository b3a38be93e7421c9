"""Text-embeddings-inference's routes, but for embed and rerank: https://huggingface.github.io/text-embeddings-inference."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, post

from nearfar.dialects import Dialect, SharedRoute, encoded_response, json_response, report, service_of
from nearfar.dialects.reading import read_request, while_connected
from nearfar.dialects.tei.bodies import (
    EmbedAllRequest,
    Parameters,
    Prediction,
    PredictRequest,
    SimilarityRequest,
    SparseValue,
    Token,
    TokenizeRequest,
)
from nearfar.dialects.tei.described import EMBED_ALL, EMBED_SPARSE, PREDICT, SIMILARITY, TOKENIZE
from nearfar.dialects.tei.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.vectors import numbers, numbers_each, put_together
from nearfar.errors import EmptyInput, InputError
from nearfar.jobs import ClassifyJob, EmbedJob, RepresentJob, TokenizeJob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.config import OnOverflow
    from nearfar.dialects import AnyRequest
    from nearfar.jobs import Classified, Piece, Represented, TokenizedText
    from nearfar.types import Output, Role, Weights


_similarity = msgspec.json.Decoder(SimilarityRequest)
_tokenize = msgspec.json.Decoder(TokenizeRequest)
_embed_all = msgspec.json.Decoder(EmbedAllRequest)
_predict = msgspec.json.Decoder(PredictRequest)


@post(
    "/similarity",
    status_code=200,
    opt=SIMILARITY,
)
async def similarity(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _similarity)
    if not body.inputs.sentences:
        raise EmptyInput("`inputs.sentences` cannot be empty")
    how = body.parameters or Parameters()
    job = EmbedJob(
        model=body.model or None,
        inputs=(body.inputs.source_sentence, *body.inputs.sentences),
        prompt=how.prompt_name,
        keep="end" if _is_left(how.truncation_direction) else "start",
        on_overflow=_on_overflow(truncate=how.truncate),
    )
    done = await while_connected(request, service_of(request).similarity(job))
    return json_response(done.scores, headers=report(request, done.model, len(job.inputs), done.usage))


@post(
    "/embed_all",
    status_code=200,
    opt=EMBED_ALL,
)
async def embed_all(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Give a vector for each token that counts, (n, M) a text."""
    done = await _represent(request, "multi_vector")
    vectors = [one.multi_vector for one in done.texts if one.multi_vector is not None]
    body = await put_together(sum(one.size for one in vectors), lambda: [numbers(one) for one in vectors])
    return encoded_response(body, headers=report(request, done.model, len(done.texts), done.usage))


@post(
    "/embed_sparse",
    status_code=200,
    opt=EMBED_SPARSE,
)
async def embed_sparse(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Give the weights above 0, an index into the vocabulary with each."""
    done = await _represent(request, "sparse")
    weights = [one.sparse for one in done.texts if one.sparse is not None]
    size = 10 * sum(len(one.indices) for one in weights)  # objects take about ten times as long as bare numbers
    body = await put_together(size, lambda: [_pairs(one) for one in weights])
    return encoded_response(body, headers=report(request, done.model, len(done.texts), done.usage))


@post(
    "/predict",
    status_code=200,
    opt=PREDICT,
)
async def predict(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Give every label of each text with its score, the likeliest first."""
    body = await read_request(request, _predict)
    inputs, single = _sequences(body.inputs)
    job = ClassifyJob(
        model=body.model or None,
        inputs=inputs,
        raw_scores=body.raw_scores,
        on_overflow=_on_overflow(truncate=body.truncate),
    )
    done = await while_connected(request, service_of(request).classify(job))
    found = _predictions(done)
    headers = report(request, done.model, len(inputs), done.usage)
    return json_response(found[0] if single else found, headers=headers)


async def tokenize(request: AnyRequest) -> Response[bytes]:
    body = await read_request(request, _tokenize)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if not texts:
        raise EmptyInput("`inputs` cannot be empty")
    job = TokenizeJob(
        model=body.model or None, texts=tuple(texts), special=body.add_special_tokens, prompt=body.prompt_name
    )
    done = await while_connected(request, service_of(request).tokenize(job))
    return json_response([_tokens(shown) for shown in done.texts])


async def _represent(request: AnyRequest, output: Output) -> Represented:
    body = await read_request(request, _embed_all)
    texts = (body.inputs,) if isinstance(body.inputs, str) else tuple(body.inputs)
    if not texts:
        raise EmptyInput("`inputs` cannot be empty")
    role: Role | None = "query" if body.prompt_name == "query" else None
    job = RepresentJob(
        model=body.model or None,
        inputs=texts,
        outputs=(output,),
        role=role,
        prompt=body.prompt_name,
        on_overflow=_on_overflow(truncate=body.truncate),
    )
    return await while_connected(request, service_of(request).represent(job))


def _sequences(inputs: str | list[str | list[str]]) -> tuple[tuple[str | tuple[str, str], ...], bool]:
    """Sort out texts and pairs, and tell whether the answer is that of a single one."""
    if isinstance(inputs, str):
        return (inputs,), True
    if inputs and all(isinstance(text, str) for text in inputs):
        return (_sequence(inputs),), True
    if not inputs:
        raise EmptyInput("`inputs` cannot be empty")
    return tuple(_sequence([text] if isinstance(text, str) else text) for text in inputs), False


def _sequence(texts: Sequence[object]) -> str | tuple[str, str]:
    match texts:
        case [str(text)]:
            return text
        case [str(text), str(other)]:
            return text, other
    raise InputError("`inputs` must be a text, a list of one or two texts, or several of these in a list")


def _predictions(done: Classified) -> list[list[Prediction]]:
    rows = [zip(scores.tolist(), done.labels or ("LABEL_0",), strict=True) for scores in done.scores]
    return [sorted((Prediction(*pair) for pair in row), key=lambda found: -found.score) for row in rows]


def _pairs(weights: Weights) -> list[SparseValue]:
    both = zip(weights.indices.tolist(), numbers_each(weights.values), strict=True)
    return [SparseValue(index, value) for index, value in both]


def _is_left(direction: str | None) -> bool:
    if direction is not None and direction.lower() not in {"left", "right"}:
        raise InputError(f"unknown variant `{direction[:50]}`, expected `Left` or `Right`")
    return direction is not None and direction.lower() == "left"


def _on_overflow(*, truncate: bool | None) -> OnOverflow | None:
    if truncate is None:
        return None
    return "truncate" if truncate else "error"


def _tokens(shown: TokenizedText) -> list[Token]:
    """Tell where each token lies, in bytes of UTF-8 as TEI counts; special tokens lie nowhere."""
    at = [0, *accumulate(len(character.encode()) for character in shown.text)]
    return [_token(piece, shown.text, at) for piece in shown.pieces]


def _token(piece: Piece, text: str, at: list[int]) -> Token:
    if piece.special:
        return Token(piece.id, piece.token, special=True, start=None, stop=None)
    return Token(piece.id, text[piece.start : piece.stop], special=False, start=at[piece.start], stop=at[piece.stop])


dialect = Dialect(
    name="tei",
    handlers=[similarity, embed_all, embed_sparse, predict],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    prefixes=("/similarity", "/embed_all", "/embed_sparse", "/predict"),
    shared=[
        SharedRoute(
            path="/tokenize",
            fields=("inputs",),
            answer=tokenize,
            described=TOKENIZE,
        )
    ],
)
