"""OpenAI's embeddings, with its response headers: https://platform.openai.com/docs/api-reference/embeddings.

The headers report the processing time, and the model's queue as rate limits. There is no organization.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Annotated, cast, get_args
from urllib.parse import quote

import msgspec
from msgspec import Struct

from nearfar.core import errors
from nearfar.core.jobs import Embedded, EmbedJob, TokenLimits
from nearfar.core.types import QueueCapacity, TokenIds
from nearfar.dialects.kit.checks import explain_mismatch
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import EmbeddingList, Encoding, TokenUsage, embedding_list, render_rows
from nearfar.dialects.kit.request import AnyRequest, decode_json, elapsed_ms, fleet_of
from nearfar.dialects.kit.route_docs import NOT_EMPTY, AtLeastOne, RouteDocs, json_schema, requires
from nearfar.models.tokenization.openai_tokens import find_vocabulary
from nearfar.serving.service import Service

_MAX_INPUTS = 2048
_TOKEN_LIMITS = TokenLimits(per_text=8192, per_request=300_000)
_ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
_REFERENCE = "Please check the API reference: https://platform.openai.com/docs/api-reference."

_MISSING = re.compile(r"missing required field `(\w+)`")  # msgspec's wording of a ValidationError
_AT = re.compile(r" - at `\$\.(\w+)")

_PLAIN = " !#$%&'()*+,/:;<=>?@[]^`{|}"  # other characters, line breaks above all, are percent-encoded

USUAL_HEADERS = {
    "openai-version": "version of OpenAI's API",
    "openai-processing-ms": "milliseconds from the request's head to its response",
}
ANSWER_HEADERS = {
    **USUAL_HEADERS,
    "openai-model": "the model that answered",
    "x-ratelimit-limit-tokens": "tokens that may be queued or running",
    "x-ratelimit-remaining-tokens": "tokens that the queue has room for now",
    "x-ratelimit-reset-tokens": "time until the queue is empty, at the throughput of the last batches",
    "x-ratelimit-limit-requests": "requests that may be queued or running",
    "x-ratelimit-remaining-requests": "requests that the queue has room for now",
    "x-ratelimit-reset-requests": "the same as x-ratelimit-reset-tokens",
}

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


_DOCS = RouteDocs(
    summary="Vectors of texts, or of token ids",
    body=requires(EmbeddingsRequest, model=NOT_EMPTY),
    reply=EmbeddingList[TokenUsage],
    example={"model": "text-embedding-3-small", "input": "a cat on the sofa"},
    examples={
        "texts": {"model": "text-embedding-3-small", "input": ["a cat on the sofa", "a dog in the garden"]},
        "token ids": {"model": "text-embedding-3-small", "input": [[15339, 1917], [8134]]},
        "base64": {"model": "text-embedding-3-small", "input": "a cat on the sofa", "encoding_format": "base64"},
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
    inputs = _inputs(found)
    job = EmbedJob(
        model=body.model,
        inputs=inputs,
        dimensions=body.dimensions,
        vocabulary=find_vocabulary(body.model) if isinstance(inputs[0], tuple) else None,
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
        found, _, place = str(error).partition(" - at `$")
        raise msgspec.ValidationError(f"{found} - at `$.input{place or '`'}") from error


def _inputs(found: _Input) -> tuple[str | TokenIds, ...]:
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
    if len(found) > _MAX_INPUTS:
        raise errors.TooManyItems("input", len(found), _MAX_INPUTS)
    return tuple(cast("list[str]", found)) if kinds == {str} else tuple(map(tuple, cast("list[list[int]]", found)))


def _shape_error(error: msgspec.ValidationError) -> errors.InputError:
    """Name the invalid field, in OpenAI's words."""
    found = _MISSING.search(str(error)) or _AT.search(str(error))
    place = f".{found[1]}" if found else ""
    return errors.InputError(f"'${place}' is invalid. {_REFERENCE} {explain_mismatch(error)}.")


def _reply(body: EmbeddingsRequest, _: EmbedJob, done: Embedded) -> EmbeddingList[TokenUsage]:
    rows = render_rows(done, encoding=cast("Encoding", body.encoding_format or "float"))
    return embedding_list(done, rows, TokenUsage(done.usage.tokens, done.usage.tokens))


def usual_headers(request: AnyRequest) -> dict[str, str]:
    """Return the headers of every response."""
    headers = {"openai-version": "2020-10-01"}
    if (elapsed := elapsed_ms(request)) is not None:
        headers["openai-processing-ms"] = str(elapsed)
    return headers


def answer_headers(request: AnyRequest, _: EmbedJob, done: Embedded) -> dict[str, str]:
    """Return the headers of a reply to a job."""
    limits = _limits(fleet_of(request).queue_capacity(done.info.name))
    return {**usual_headers(request), "openai-model": _header_value(done.info.name), **limits}


@lru_cache(maxsize=256)
def _header_value(name: str) -> str:
    return quote(name, safe=_PLAIN)


def error_headers(request: AnyRequest, error: errors.NearfarError) -> dict[str, str]:
    """Return the headers of an error; a full queue reports its limits."""
    return usual_headers(request) | _limits(error.capacity if isinstance(error, errors.Overloaded) else None)


def _limits(capacity: QueueCapacity | None) -> dict[str, str]:
    if capacity is None:
        return {}
    headers = {
        "x-ratelimit-limit-tokens": str(capacity.tokens_limit),
        "x-ratelimit-remaining-tokens": str(capacity.tokens_free),
        "x-ratelimit-limit-requests": str(capacity.requests_limit),
        "x-ratelimit-remaining-requests": str(capacity.requests_free),
    }
    if capacity.drain_s is not None:
        reset = duration(math.ceil(capacity.drain_s * 1000) / 1000)  # 0s for an empty queue only
        headers |= {"x-ratelimit-reset-tokens": reset, "x-ratelimit-reset-requests": reset}
    return headers


def duration(seconds: float) -> str:
    """Format a time as OpenAI does: ``0s``, ``12ms``, ``1.5s``, ``6m0s``, ``1h0m0.25s``."""
    ms = round(seconds * 1000)
    if 0 < ms < 1000:  # noqa: PLR2004 — a second
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{whole}{ms / 1000:g}s"


EMBEDDINGS = Endpoint(_DOCS, _to_job, Service.embed, _reply, headers=answer_headers, shape_error=_shape_error)
