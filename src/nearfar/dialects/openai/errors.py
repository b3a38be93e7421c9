"""OpenAI's errors: status, type, code and message."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.error_responses import ErrorRow, ErrorTable, WireError

_SERVER_ERROR = 500  # the lowest status


def _dimensions_message(error: errors.InvalidDimensions) -> str:
    bound = f"less than or equal to {error.limit}" if error.dimensions > 0 else "greater than or equal to 1"
    return f"Invalid value for 'dimensions' = {error.dimensions}. Must be {bound}."


def _model_message(error: errors.ModelNotFound) -> str:
    if error.listing:
        return f"The model '{error.model}' does not exist"
    return f"The model `{error.model}` does not exist or you do not have access to it."


ERRORS: ErrorTable = {
    errors.ModelRequired: ErrorRow(message=lambda _: "you must provide a model parameter"),
    errors.MalformedBody: ErrorRow(
        message=lambda error: f"We could not parse the JSON body of your request. (HINT: {error})"
    ),
    errors.TooManyItems: ErrorRow(
        message=lambda error: f"Invalid '{error.param}': array length must be {error.limit} or less."
    ),
    errors.TextTooLong: ErrorRow(
        message=lambda error: f"Invalid 'input[{error.index}]': maximum input length is {error.limit} tokens."
    ),
    errors.TooManyTokens: ErrorRow(
        kind="max_tokens_per_request",
        code="max_tokens_per_request",
        message=lambda error: f"Requested {error.tokens} tokens, max {error.limit} tokens per request",
    ),
    errors.InvalidDimensions: ErrorRow(message=_dimensions_message),
    errors.InvalidTokenIds: ErrorRow(message=lambda error: f"Invalid 'input': {error}."),
    errors.ModelNotFound: ErrorRow(code="model_not_found", message=_model_message),
    errors.WrongTask: ErrorRow(
        403,
        message=lambda error: (
            f"You are not allowed to generate embeddings from this model: {error}; /v1/models lists what each can do"
        ),
    ),
    errors.PathNotFound: ErrorRow(message=lambda error: f"Invalid URL ({error.method} {error.path})"),
    errors.MethodNotAllowed: ErrorRow(
        code="method_not_supported",
        message=lambda error: f"Only {' and '.join(error.allowed)} requests are accepted.",
    ),
    errors.ApiKeyMissing: ErrorRow(
        message=lambda _: (
            "You didn't provide an API key. You need to provide your API key in an Authorization header "
            "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
    ),
    errors.ApiKeyInvalid: ErrorRow(code="invalid_api_key", message=lambda _: "Incorrect API key provided."),
    errors.Forbidden: ErrorRow(
        message=lambda error: f"You have insufficient permissions for this operation. Missing scopes: {error.scope}."
    ),
    errors.ServingError: ErrorRow(
        message=lambda _: "The server had an error while processing your request. Sorry about that!"
    ),
    errors.StorageUnavailable: ErrorRow(message=lambda error: f"Files and batches are unavailable: {error}."),
    errors.Overloaded: ErrorRow(
        kind="requests",
        code="rate_limit_exceeded",
        message=lambda error: f"Rate limit reached: {error}. Please try again later.",
    ),
}


class ErrorInfo(Struct):
    """The error: a message, its type, and the parameter and code where it has any."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Struct):
    """The body of every error.

    Cohere's clients, which list models at the same path, read ``message``. Jina's and Voyage's, which send embeddings
    requests to the same path, read ``detail``.
    """

    error: ErrorInfo
    message: str
    detail: str


def render_error(wire: WireError) -> object:
    """Return the body of an error."""
    param = "model" if isinstance(wire.error, errors.ModelNotFound) and wire.error.listing else None
    if isinstance(wire.error, errors.ObjectNotFound):
        param = "id"
    kind = wire.kind or ("server_error" if wire.status >= _SERVER_ERROR else "invalid_request_error")
    return ErrorReply(ErrorInfo(wire.message, kind, param, wire.code), wire.message, wire.message)
