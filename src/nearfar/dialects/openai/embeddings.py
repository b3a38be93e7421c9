"""OpenAI's embeddings, with vLLM's fields: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

import re
import time
import uuid
from typing import Annotated, cast, get_args

import msgspec

from nearfar.core import errors
from nearfar.core.jobs import Chat, Embedded, EmbedJob, TokenLimits
from nearfar.core.types import Task, TokenIds, TokenVocabulary
from nearfar.dialects.kit.checks import Inputs, explain_mismatch
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import (
    ArrayFormat,
    Binary,
    EmbeddingList,
    Encoding,
    TokenUsage,
    binary_reply,
    embedding_list,
    render_rows,
)
from nearfar.dialects.kit.route_docs import NOT_EMPTY, AtLeastOne, RouteDocs, json_schema, requires
from nearfar.dialects.openai.headers import ANSWER_HEADERS, answer_headers
from nearfar.models.files.tokenizer.openai_tokens import find_vocabulary
from nearfar.serving.service import Service

_MAX_INPUTS = 2048
# Names of the first generation stay unknown: their clients send ids of vocabularies that the server doesn't have.
VENDOR_MODELS: dict[str, Task] = dict.fromkeys(
    ("text-embedding-ada-002", "text-embedding-ada-002-v2", "text-embedding-3-small", "text-embedding-3-large"), "embed"
)
_ENCODINGS = ("float", "base64")
_VOCABULARIES: tuple[TokenVocabulary, ...] = get_args(TokenVocabulary)
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


class EmbeddingsRequest(ArrayFormat, kw_only=True):
    """The body of POST /v1/embeddings. Null means absent; other fields, such as ``user``, are ignored.

    ``input`` is a text, texts, token ids of one text, or of several. ``token_ids`` decides what ids these are:
    OpenAI's, or the model's own, as vLLM's callers send them. The fields after ``dimensions`` are vLLM's:
    ``use_activation`` false, or its older name ``normalize``, returns vectors of any length.
    """

    model: str | None = None
    input: Annotated[Inputs | None, json_schema(anyOf=[*_INPUT["anyOf"], {"type": "null"}])] = None
    token_ids: Annotated[str, json_schema(enum=list(_VOCABULARIES))] | None = None
    dimensions: AtLeastOne | None = None
    normalize: bool | None = None
    max_tokens_per_doc: Annotated[int, json_schema(const=0)] | None = None
    max_tokens_per_query: Annotated[int, json_schema(const=0)] | None = None


_DOCS = RouteDocs(
    summary="Vectors of texts, or of token ids",
    answers=("vectors",),
    body=requires(EmbeddingsRequest, input=_INPUT),
    reply=EmbeddingList[TokenUsage],
    example={"model": "text-embedding-3-small", "input": "a cat on the sofa"},
    examples={
        "texts": {"model": "text-embedding-3-small", "input": ["a cat on the sofa", "a dog in the garden"]},
        "token ids": {"model": "text-embedding-3-small", "input": [[15339, 1917], [8134]]},
        "base64": {"model": "text-embedding-3-small", "input": "a cat on the sofa", "encoding_format": "base64"},
        "bytes": {"model": "text-embedding-3-small", "input": "a cat on the sofa", "encoding_format": "bytes"},
    },
    headers=ANSWER_HEADERS,
    has_binary_reply=True,
)


_VENDORS_LIMITS = TokenLimits(inputs=_MAX_INPUTS, per_text=8192, per_request=300_000)
_OWN_LIMITS = msgspec.structs.replace(_VENDORS_LIMITS, is_vendor_name=False)


def _to_job(body: EmbeddingsRequest) -> EmbedJob:
    """Convert the body. Raises an InputError in OpenAI's words, or ValidationError for an illegal ``input``."""
    inputs = _inputs(body)
    vocabulary = find_vocabulary(body.model or "") if isinstance(inputs[0], tuple) else None
    job = EmbedJob(
        model=body.model or "",
        inputs=inputs,
        special=body.adds_special_tokens,
        # Infinity's client sends 0 for all.
        dimensions=body.dimensions if body.model in VENDOR_MODELS else body.dimensions or None,
        vocabulary=None if body.token_ids == "model" else vocabulary,  # noqa: S105 — no password
        vocabulary_is_default=body.token_ids is None,
        token_limits=_VENDORS_LIMITS if body.model in VENDOR_MODELS else _OWN_LIMITS,
        normalize=_normalize(body),
        **body.truncation(),
    )
    if body.encoding_format not in {None, *_ENCODINGS} and not body.is_binary:
        raise errors.InputError(
            f"Invalid value for 'encoding_format' = {str(body.encoding_format)[:50]}. "
            "Supported values: ['float', 'base64']."
        )
    # What would change the numbers if it weren't ignored.
    body.check_format()
    if body.token_ids not in {None, *_VOCABULARIES}:
        raise errors.InputError(
            f"token_ids must be one of {', '.join(_VOCABULARIES)}, not {str(body.token_ids)[:50]!r}"
        )
    if body.max_tokens_per_doc or body.max_tokens_per_query:
        raise errors.InputError("max_tokens_per_doc and max_tokens_per_query only rerank; send truncate_prompt_tokens")
    return job


def _normalize(body: EmbeddingsRequest) -> bool | None:
    """Return whether vectors should have unit length, by any of the three names; None leaves it to the model."""
    found = {body.use_activation, body.activation, body.normalize} - {None}
    if len(found) > 1:
        raise errors.InputError("use_activation and normalize contradict each other; send one of them")
    return found.pop() if found else None


def _inputs(body: EmbeddingsRequest) -> tuple[str | TokenIds | Chat, ...]:
    """Return the chat, or the texts or token ids."""
    if body.messages:
        return (body.chat(has_input=body.input is not None),)
    if body.input is None:
        raise msgspec.ValidationError("Object missing required field `input`")
    return _texts(body.input)


def _texts(found: Inputs) -> tuple[str | TokenIds, ...]:
    """Convert the four legal forms: a text, texts, token ids of one text, token ids of several."""
    if isinstance(found, str):
        found = [found]
    if not found or [] in found:
        raise errors.EmptyInput("Invalid 'input': input cannot be an empty array.")
    kinds = set(map(type, found))
    if len(kinds) != 1:
        other = next(index for index, one in enumerate(found) if type(one) is not type(found[0]))
        raise errors.InputError(f"'$.input' is invalid. {_REFERENCE} input[{other}] is of another kind than input[0].")
    if "" in found:
        place = f" See input[{found.index('')}]." if len(found) > 1 else ""
        raise errors.EmptyInput(f"Invalid 'input': input cannot be an empty string.{place}")
    if kinds == {int}:
        return (cast("TokenIds", tuple(found)),)
    return tuple(cast("list[str]", found)) if kinds == {str} else tuple(map(tuple, cast("list[list[int]]", found)))


def _shape_error(error: msgspec.ValidationError) -> errors.InputError:
    """Name the invalid field, in OpenAI's words."""
    found = _MISSING.search(str(error)) or _AT.search(str(error))
    place = f".{found[1]}" if found else ""
    return errors.InputError(f"'${place}' is invalid. {_REFERENCE} {explain_mismatch(error)}.")


def _reply(body: EmbeddingsRequest, _: EmbedJob, done: Embedded) -> EmbeddingList[TokenUsage] | Binary:
    usage = TokenUsage(done.usage.tokens, done.usage.tokens)
    if body.is_binary:
        about = {"id": f"embd-{uuid.uuid4().hex}", "created": int(time.time()), "model": done.info.name}
        return binary_reply([*done.vectors], body, {**about, "usage": msgspec.to_builtins(usage)})
    if body.embed_dtype or body.endianness:
        return embedding_list(done, [body.render(vector) for vector in done.vectors], usage)
    return embedding_list(done, render_rows(done, encoding=cast("Encoding", body.encoding_format or "float")), usage)


EMBEDDINGS = Endpoint(_DOCS, _to_job, Service.embed, _reply, headers=answer_headers, shape_error=_shape_error)
