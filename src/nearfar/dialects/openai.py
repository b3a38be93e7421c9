"""OpenAI's embeddings and models, in its words: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, cast

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath
from msgspec import Struct

from nearfar import errors
from nearfar.dialects import (
    Dialect,
    ErrorRow,
    decode_json,
    encoded_response,
    fleet_of,
    json_response,
    read_body,
    report,
    service_of,
    while_connected,
)
from nearfar.dialects.vectors import Encoding, render_reply
from nearfar.models.openai_tokens import vocabulary_of
from nearfar.types import Ceiling, EmbedJob, TokenIds

if TYPE_CHECKING:
    from nearfar.types import Embedded, ModelInfo, Task

_MAX_INPUTS = 2048
_CEILING = Ceiling(tokens_each=8192, tokens_together=300_000)
_REFERENCE = "Please check the API reference: https://platform.openai.com/docs/api-reference."
_INVALID = "invalid_request_error"

_MISSING = re.compile(r"missing required field `(\w+)`")  # msgspec's wording of a ValidationError
_AT = re.compile(r" - at `\$\.(\w+)")


class EmbeddingsRequest(Struct, kw_only=True):
    """The body of POST /v1/embeddings. Null means absent; fields not named here are ignored.

    ``input`` is still JSON: a text, texts, token ids of one text, or of several.
    """

    model: str | None = None
    input: msgspec.Raw
    encoding_format: str | None = None
    dimensions: int | None = None


class _Embedding(Struct, kw_only=True):
    object: str = "embedding"
    index: int
    embedding: msgspec.Raw


class _Tokens(Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(Struct, kw_only=True):
    """The body of an answer, in the order of the request."""

    object: str = "list"
    data: list[_Embedding]
    model: str
    usage: _Tokens


class ModelReply(Struct, kw_only=True):
    """One model, as OpenAI lists it."""

    id: str
    object: str = "model"
    created: int
    owned_by: str


class ModelsReply(Struct, kw_only=True):
    """The body of GET /v1/models."""

    object: str = "list"
    data: list[ModelReply]


_Input = str | list[str | int | list[int]]
_decoder = msgspec.json.Decoder(EmbeddingsRequest)
_input_decoder: msgspec.json.Decoder[_Input] = msgspec.json.Decoder(_Input)


@post(["/v1/embeddings", "/embeddings"], status_code=200)
async def create_embeddings(request: Request[Any, Any, Any]) -> Response[bytes]:
    started = time.perf_counter()
    try:
        body = await read_body(request, _decoder)
        job, encoding = to_job(body), _encoding(body.encoding_format)
    except msgspec.ValidationError as error:
        raise _bad_shape(error) from error
    done = await while_connected(request, service_of(request).embed(job))
    encoded = await render_reply(done.vectors, encoding, lambda rendered: _reply(done, rendered))
    headers = report(request, done.model, len(done.vectors), done.usage)
    headers["openai-model"] = done.model
    headers["openai-processing-ms"] = str(round((time.perf_counter() - started) * 1000))
    headers["openai-version"] = "2020-10-01"
    return encoded_response(encoded, headers=headers)


@get("/v1/models")
async def list_models(request: Request[Any, Any, Any]) -> Response[bytes]:
    fleet = fleet_of(request)
    fleet.refuse_unready()
    infos = [model.info for model in fleet.models()]
    listed = [_model(info, name) for info in infos for name in (info.name, *info.aliases)]
    return json_response(ModelsReply(data=listed))


@get("/v1/models/{model_id:path}")
async def get_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> Response[bytes]:
    name = model_id.removeprefix("/")
    return json_response(_model(fleet_of(request).describe(name), name))


def _reply(done: Embedded, rendered: list[msgspec.Raw]) -> EmbeddingsReply:
    return EmbeddingsReply(
        data=[_Embedding(index=index, embedding=vector) for index, vector in enumerate(rendered)],
        model=done.model,
        usage=_Tokens(prompt_tokens=done.usage.tokens, total_tokens=done.usage.tokens),
    )


def to_job(body: EmbeddingsRequest) -> EmbedJob:
    """Turn the body into a job. Raises an InputError in OpenAI's words, or a ValidationError for an odd ``input``."""
    said = _decode_input(bytes(body.input))
    if not body.model:
        raise errors.NoModel("you must provide a model parameter")
    return EmbedJob(
        model=body.model,
        inputs=_inputs(said),
        dimensions=body.dimensions,
        vocabulary=vocabulary_of(body.model),
        ceiling=_CEILING,
    )


def _decode_input(raw: bytes) -> _Input:
    """Decode ``input``, unless it is plain to see that it has far too many items: making them would take a second.

    Every inner list has a bracket, and in a list that begins with one there can't be a text. ``","`` stands between
    two texts, and otherwise only at the end of one: inside, a quote has a backslash before it.
    """
    lists, texts = raw.count(b"[") - 1 if raw.startswith(b"[[") else 0, raw.count(b'","') // 2
    if max(lists, texts) > _MAX_INPUTS:
        raise errors.TooMany("input", max(lists, texts), _MAX_INPUTS)
    try:
        return decode_json(raw, _input_decoder)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"{error} - at `$.input`") from error


def _inputs(said: _Input) -> tuple[str | TokenIds, ...]:
    """Sort out the four legal forms: a text, texts, token ids of one text, token ids of several."""
    if isinstance(said, str):
        said = [said]
    if not said or [] in said:
        raise errors.EmptyInput("Invalid 'input': input cannot be an empty array.")
    kinds = set(map(type, said))
    if len(kinds) != 1:
        raise errors.InputError(f"'$.input' is invalid. {_REFERENCE}")
    if "" in said:
        raise errors.EmptyInput("Invalid 'input': input cannot be an empty string.")
    if kinds == {int}:
        return (cast("TokenIds", tuple(said)),)
    if len(said) > _MAX_INPUTS:
        raise errors.TooMany("input", len(said), _MAX_INPUTS)
    return tuple(cast("list[str]", said)) if kinds == {str} else tuple(map(tuple, cast("list[list[int]]", said)))


def _encoding(said: str | None) -> Encoding:
    if said is None or said == "float":
        return "float"
    if said == "base64":
        return "base64"
    raise errors.InputError(
        f"Invalid value for 'encoding_format' = {said[:50]}. Supported values: ['float', 'base64']."
    )


def _bad_shape(error: msgspec.ValidationError) -> errors.InputError:
    """Name the field that is wrong, in OpenAI's words."""
    found = _MISSING.search(str(error)) or _AT.search(str(error))
    return errors.InputError(f"'$.{found[1]}' is invalid. {_REFERENCE}" if found else f"'$' is invalid. {_REFERENCE}")


def _model(info: ModelInfo, name: str) -> ModelReply:
    owner, slash, _ = info.name.partition("/")
    return ModelReply(id=name, created=info.created, owned_by=owner if slash else "nearfar")


def _phrase_dimensions(error: errors.BadDimensions) -> str:
    bound = f"less than or equal to {error.limit}" if error.dimensions > 0 else "greater than or equal to 1"
    return f"Invalid value for 'dimensions' = {error.dimensions}. Must be {bound}."


def _phrase_model(error: errors.UnknownModel) -> str:
    if error.listing:
        return f"The model '{error.model}' does not exist"
    return f"The model `{error.model}` does not exist or you do not have access to it."


def _phrase_task(error: errors.WrongTask) -> str:
    return f"You are not allowed to generate embeddings from this model: {error.model} only ranks."


_SORRY = "The server had an error while processing your request. Sorry about that!"
_ERRORS: dict[type[errors.NearfarError], ErrorRow] = {
    errors.RequestError: ErrorRow(400, _INVALID),
    errors.InputError: ErrorRow(400, _INVALID),
    errors.MalformedBody: ErrorRow(
        400, _INVALID, None, lambda error: f"We could not parse the JSON body of your request. (HINT: {error})"
    ),
    errors.BodyTooLarge: ErrorRow(413, _INVALID),
    errors.NoModel: ErrorRow(400, _INVALID),
    errors.EmptyInput: ErrorRow(400, _INVALID),
    errors.TooMany: ErrorRow(
        400, _INVALID, None, lambda error: f"Invalid '{error.param}': array length must be {error.limit} or less."
    ),
    errors.TooLong: ErrorRow(
        400,
        _INVALID,
        None,
        lambda error: f"Invalid 'input[{error.index}]': maximum input length is {error.limit} tokens.",
    ),
    errors.TooManyTokens: ErrorRow(
        400,
        "max_tokens_per_request",
        "max_tokens_per_request",
        lambda error: f"Requested {error.tokens} tokens, max {error.limit} tokens per request",
    ),
    errors.BadDimensions: ErrorRow(400, _INVALID, None, _phrase_dimensions),
    errors.BadTokenIds: ErrorRow(400, _INVALID, None, lambda error: f"Invalid 'input': {error}."),
    errors.UnknownModel: ErrorRow(404, _INVALID, "model_not_found", _phrase_model),
    errors.WrongTask: ErrorRow(403, _INVALID, None, _phrase_task),
    errors.UnknownPath: ErrorRow(404, _INVALID, None, lambda error: f"Invalid URL ({error.method} {error.path})"),
    errors.WrongMethod: ErrorRow(
        405,
        _INVALID,
        "method_not_supported",
        lambda error: f"Only {' and '.join(error.allowed)} requests are accepted.",
    ),
    errors.MissingKey: ErrorRow(
        401,
        _INVALID,
        None,
        lambda _: (
            "You didn't provide an API key. You need to provide your API key in an Authorization header "
            "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        ),
    ),
    errors.WrongKey: ErrorRow(401, _INVALID, "invalid_api_key", lambda _: "Incorrect API key provided."),
    errors.CallerGone: ErrorRow(499, _INVALID),
    errors.ServingError: ErrorRow(500, "server_error", None, lambda _: _SORRY),
    errors.Overloaded: ErrorRow(
        429, "requests", "rate_limit_exceeded", lambda error: f"Rate limit reached: {error}. Please try again later."
    ),
    errors.DeadlinePassed: ErrorRow(504, "server_error"),
    errors.NotReady: ErrorRow(503, "server_error"),
    errors.Draining: ErrorRow(503, "server_error"),
    errors.EngineFailed: ErrorRow(500, "server_error", None, lambda _: _SORRY),
    errors.InternalFault: ErrorRow(500, "server_error", None, lambda _: _SORRY),
}


def _render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:
    param = "model" if isinstance(error, errors.UnknownModel) and error.listing else None
    return {"error": {"message": sentence, "type": row.kind, "param": param, "code": row.code}}


_VENDOR_MODELS: dict[str, Task] = dict.fromkeys(
    ("text-embedding-ada-002", "text-embedding-ada-002-v2", "text-embedding-3-small", "text-embedding-3-large"), "embed"
)

dialect = Dialect(
    name="openai",
    handlers=[create_embeddings, list_models, get_model],
    errors=_ERRORS,
    render_error=_render_error,
    prefixes=("/v1", "/embeddings"),
    vendor_models=_VENDOR_MODELS,
)
