"""OpenAI's embeddings: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

import re
from typing import Annotated, cast, get_args

import msgspec
from msgspec import Struct

from nearfar.core import errors
from nearfar.core.jobs import Embedded, EmbedJob, TokenLimits
from nearfar.core.types import TokenIds
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import Encoding, render_rows
from nearfar.dialects.kit.request import decode_json
from nearfar.dialects.kit.route_docs import NOT_EMPTY, AtLeastOne, NumbersOrBase64, RouteDocs, json_schema, requires
from nearfar.dialects.openai.headers import ANSWER_HEADERS, answer_headers
from nearfar.models.tokenization.openai_tokens import find_vocabulary
from nearfar.serving.service import Service

_MAX_INPUTS = 2048
_TOKEN_LIMITS = TokenLimits(per_text=8192, per_request=300_000)
_ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
_REFERENCE = "Please check the API reference: https://platform.openai.com/docs/api-reference."

_MISSING = re.compile(r"missing required field `(\w+)`")  # msgspec's wording of a ValidationError
_AT = re.compile(r" - at `\$\.(\w+)")

_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_INPUT = {
    "anyOf": [
        NOT_EMPTY,
        {"type": "array", "items": NOT_EMPTY, "minItems": 1, "maxItems": _MAX_INPUTS},
        _IDS,
        {"type": "array", "items": _IDS, "minItems": 1, "maxItems": _MAX_INPUTS},
    ]
}


class EmbeddingsRequest(Struct, kw_only=True):
    """The body of POST /v1/embeddings. Null means absent; other fields, such as ``user``, are ignored.

    ``input`` is still JSON: a text, texts, token ids of one text, or of several.
    """

    model: str | None = None
    input: Annotated[msgspec.Raw, json_schema(**_INPUT)]
    encoding_format: Annotated[str, json_schema(enum=list(_ENCODINGS))] | None = None
    dimensions: AtLeastOne | None = None


class Embedding(Struct, kw_only=True):
    """One vector: numbers, or base64 of little-endian float32 if requested."""

    object: Annotated[str, json_schema(const="embedding")] = "embedding"
    index: int
    embedding: NumbersOrBase64


class Tokens(Struct):
    """The tokens that the model read. There is no completion, so both are equal."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(Struct, kw_only=True):
    """The body of a response, in the order of the request."""

    object: Annotated[str, json_schema(const="list")] = "list"
    data: list[Embedding]
    model: str
    usage: Tokens


_DOCS = RouteDocs(
    summary="Vectors of texts, or of token ids",
    body=requires(EmbeddingsRequest, model=NOT_EMPTY),
    reply=EmbeddingsReply,
    example={"model": "text-embedding-3-small", "input": "a cat on the sofa"},
    examples={
        "texts": {"model": "text-embedding-3-small", "input": ["a cat on the sofa", "a dog in the garden"]},
        "token ids": {"model": "text-embedding-3-small", "input": [[15339, 1917], [8134]]},
        "base64": {"model": "text-embedding-3-small", "input": "a cat on the sofa", "encoding_format": "base64"},
    },
    reply_example={
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}],
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    },
    headers=ANSWER_HEADERS,
)


_Input = str | list[str | int | list[int]]
_input_decoder: msgspec.json.Decoder[_Input] = msgspec.json.Decoder(_Input)


def _to_job(body: EmbeddingsRequest) -> EmbedJob:
    """Convert the body. Raises an InputError in OpenAI's words, or ValidationError for an illegal ``input``."""
    found = _decode_input(bytes(body.input))
    if not body.model:
        raise errors.ModelRequired("you must provide a model parameter")
    job = EmbedJob(
        model=body.model,
        inputs=_inputs(found),
        dimensions=body.dimensions,
        vocabulary=find_vocabulary(body.model),
        token_limits=_TOKEN_LIMITS,
    )
    if body.encoding_format not in {None, *_ENCODINGS}:
        raise errors.InputError(
            f"Invalid value for 'encoding_format' = {str(body.encoding_format)[:50]}. "
            "Supported values: ['float', 'base64']."
        )
    return job


def _decode_input(raw: bytes) -> _Input:
    """Decode ``input``, unless it plainly has far too many items: creating them would take a second.

    Every inner list has a bracket, and a list that begins with one can't have a text. ``","`` stands between two texts,
    and otherwise only at the end of one: inside, a quote has a backslash before it.
    """
    lists, texts = raw.count(b"[") - 1 if raw.startswith(b"[[") else 0, raw.count(b'","') // 2
    if max(lists, texts) > _MAX_INPUTS:
        raise errors.TooManyItems("input", max(lists, texts), _MAX_INPUTS)
    try:
        return decode_json(raw, _input_decoder)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"{error} - at `$.input`") from error


def _inputs(found: _Input) -> tuple[str | TokenIds, ...]:
    """Convert the four legal forms: a text, texts, token ids of one text, token ids of several."""
    if isinstance(found, str):
        found = [found]
    if not found or [] in found:
        raise errors.EmptyInput("Invalid 'input': input cannot be an empty array.")
    kinds = set(map(type, found))
    if len(kinds) != 1:
        raise errors.InputError(f"'$.input' is invalid. {_REFERENCE}")
    if "" in found:
        raise errors.EmptyInput("Invalid 'input': input cannot be an empty string.")
    if kinds == {int}:
        return (cast("TokenIds", tuple(found)),)
    if len(found) > _MAX_INPUTS:
        raise errors.TooManyItems("input", len(found), _MAX_INPUTS)
    return tuple(cast("list[str]", found)) if kinds == {str} else tuple(map(tuple, cast("list[list[int]]", found)))


def _shape_error(error: msgspec.ValidationError) -> errors.InputError:
    """Name the invalid field, in OpenAI's words."""
    found = _MISSING.search(str(error)) or _AT.search(str(error))
    return errors.InputError(f"'$.{found[1]}' is invalid. {_REFERENCE}" if found else f"'$' is invalid. {_REFERENCE}")


def _reply(body: EmbeddingsRequest, _: EmbedJob, done: Embedded) -> EmbeddingsReply:
    rows = render_rows(done, encoding=cast("Encoding", body.encoding_format or "float"))
    return EmbeddingsReply(
        data=[Embedding(index=index, embedding=row) for index, row in enumerate(rows)],
        model=done.model,
        usage=Tokens(prompt_tokens=done.usage.tokens, total_tokens=done.usage.tokens),
    )


EMBEDDINGS = Endpoint(
    docs=_DOCS,
    decoder=msgspec.json.Decoder(EmbeddingsRequest),
    to_job=_to_job,
    call=Service.embed,
    reply=_reply,
    headers=answer_headers,
    shape_error=_shape_error,
)
