"""Our errors in OpenAI's words: status, type, code and sentence."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.base import ErrorRow

_INVALID = "invalid_request_error"


def _phrase_dimensions(error: errors.InvalidDimensions) -> str:
    bound = f"less than or equal to {error.limit}" if error.dimensions > 0 else "greater than or equal to 1"
    return f"Invalid value for 'dimensions' = {error.dimensions}. Must be {bound}."


def _phrase_model(error: errors.ModelNotFound) -> str:
    if error.listing:
        return f"The model '{error.model}' does not exist"
    return f"The model `{error.model}` does not exist or you do not have access to it."


_SORRY = "The server had an error while processing your request. Sorry about that!"
ERRORS: dict[type[errors.NearfarError], ErrorRow] = {
    errors.RequestError: ErrorRow(400, _INVALID),
    errors.InputError: ErrorRow(400, _INVALID),
    errors.MalformedBody: ErrorRow(
        400, _INVALID, None, lambda error: f"We could not parse the JSON body of your request. (HINT: {error})"
    ),
    errors.BodyTooLarge: ErrorRow(413, _INVALID),
    errors.BodyTimeout: ErrorRow(408, _INVALID),
    errors.ModelRequired: ErrorRow(400, _INVALID),
    errors.EmptyInput: ErrorRow(400, _INVALID),
    errors.TooManyItems: ErrorRow(
        400, _INVALID, None, lambda error: f"Invalid '{error.param}': array length must be {error.limit} or less."
    ),
    errors.TextTooLong: ErrorRow(
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
    errors.InvalidDimensions: ErrorRow(400, _INVALID, None, _phrase_dimensions),
    errors.InvalidTokenIds: ErrorRow(400, _INVALID, None, lambda error: f"Invalid 'input': {error}."),
    errors.ModelNotFound: ErrorRow(404, _INVALID, "model_not_found", _phrase_model),
    errors.WrongTask: ErrorRow(
        403, _INVALID, None, lambda _: "You are not allowed to generate embeddings from this model"
    ),
    errors.PathNotFound: ErrorRow(404, _INVALID, None, lambda error: f"Invalid URL ({error.method} {error.path})"),
    errors.MethodNotAllowed: ErrorRow(
        405,
        _INVALID,
        "method_not_supported",
        lambda error: f"Only {' and '.join(error.allowed)} requests are accepted.",
    ),
    errors.ApiKeyMissing: ErrorRow(
        401,
        _INVALID,
        None,
        lambda _: (
            "You didn't provide an API key. You need to provide your API key in an Authorization header "
            "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        ),
    ),
    errors.ApiKeyInvalid: ErrorRow(401, _INVALID, "invalid_api_key", lambda _: "Incorrect API key provided."),
    errors.Forbidden: ErrorRow(
        403,
        _INVALID,
        None,
        lambda error: f"You have insufficient permissions for this operation. Missing scopes: {error.scope}.",
    ),
    errors.HostNotAllowed: ErrorRow(403, _INVALID),
    errors.ClientDisconnected: ErrorRow(499, _INVALID),
    errors.ServingError: ErrorRow(500, "server_error", None, lambda _: _SORRY),
    errors.Overloaded: ErrorRow(
        429, "requests", "rate_limit_exceeded", lambda error: f"Rate limit reached: {error}. Please try again later."
    ),
    errors.DeadlineExceeded: ErrorRow(504, "server_error"),
    errors.ModelNotReady: ErrorRow(503, "server_error"),
    errors.ShuttingDown: ErrorRow(503, "server_error"),
    errors.DeviceOutOfMemory: ErrorRow(413, _INVALID),  # not 5xx: clients would send it again, twice
    errors.EngineError: ErrorRow(500, "server_error", None, lambda _: _SORRY),
    errors.InternalError: ErrorRow(500, "server_error", None, lambda _: _SORRY),
}


class Fault(Struct):
    """What went wrong: a sentence, its kind, and what is wrong where that has a name."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Struct):
    """The body of every error.

    ``message`` is where clients of Cohere look, whose list of models has the same path, and ``detail`` where those of
    Jina and Voyage do, whose embeddings have.
    """

    error: Fault
    message: str
    detail: str


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:
    param = "model" if isinstance(error, errors.ModelNotFound) and error.listing else None
    return ErrorReply(Fault(sentence, row.kind, param, row.code), sentence, sentence)
