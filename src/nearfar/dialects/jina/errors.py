"""What goes wrong, in Jina's words: a sentence and, but for bodies of another shape, a code."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from nearfar.core import errors
from nearfar.dialects.kit.base import ErrorRow


def _invalid(error: errors.InputError) -> str:
    return f"Validation error: {error}"


_WRONG = ErrorRow(422, phrase=_invalid)
_FAILED = ErrorRow(500, code="INTERNAL_ERROR", phrase=lambda _: "An unexpected error occurred.")
_UNAVAILABLE = ErrorRow(
    503, code="SERVICE_UNAVAILABLE", phrase=lambda error: f"Service temporarily unavailable: {error}"
)
ERRORS: dict[type[errors.NearfarError], ErrorRow] = {
    errors.RequestError: ErrorRow(400),
    errors.InputError: _WRONG,
    errors.MalformedBody: _WRONG,
    errors.BodyTooLarge: ErrorRow(413),
    errors.BodyTimeout: ErrorRow(408),
    errors.ModelRequired: _WRONG,
    errors.EmptyInput: _WRONG,
    errors.TooManyItems: ErrorRow(
        422, phrase=lambda error: f"Validation error: each {error.param} list can contain at most {error.limit} items."
    ),
    errors.TextTooLong: ErrorRow(
        400,
        code="INPUT_TOKEN_LIMIT_EXCEEDED",
        phrase=lambda error: (
            f"Input text exceeds the model's maximum of {error.limit} tokens: text {error.index} has {error.tokens}. "
            "Use 'truncate: true' to have it cut, or split it into smaller chunks."
        ),
    ),
    errors.TooManyTokens: ErrorRow(400, code="INPUT_TOKEN_LIMIT_EXCEEDED"),
    errors.InvalidDimensions: _WRONG,
    errors.InvalidTokenIds: _WRONG,
    errors.ModelNotFound: ErrorRow(
        400, code="INPUT_MODEL_NOT_FOUND", phrase=lambda error: f"Model '{error.model}' not found."
    ),
    errors.WrongTask: ErrorRow(400, code="INPUT_MODEL_NOT_FOUND"),
    errors.PathNotFound: ErrorRow(404, phrase=lambda _: "Not Found"),
    errors.MethodNotAllowed: ErrorRow(405, phrase=lambda _: "Method Not Allowed"),
    errors.ApiKeyMissing: ErrorRow(
        401,
        code="AUTH_MISSING_API_KEY",
        phrase=lambda _: (
            "Authentication required. Provide your API key via the Authorization header: "
            "'Authorization: Bearer <api-key>'."
        ),
    ),
    errors.ApiKeyInvalid: ErrorRow(401, code="AUTH_INVALID_API_KEY", phrase=lambda _: "Invalid API key."),
    errors.Forbidden: ErrorRow(403),
    errors.HostNotAllowed: ErrorRow(403),
    errors.ClientDisconnected: ErrorRow(499),
    errors.ServingError: _FAILED,
    errors.Overloaded: ErrorRow(429, code="RATE_TOKEN_LIMIT_EXCEEDED"),
    errors.DeadlineExceeded: ErrorRow(504, code="SERVICE_TIMEOUT"),
    errors.ModelNotReady: _UNAVAILABLE,
    errors.ShuttingDown: _UNAVAILABLE,
    errors.DeviceOutOfMemory: ErrorRow(413),
    errors.EngineError: _FAILED,
    errors.InternalError: _FAILED,
}


class JinaErrorReply(Struct, omit_defaults=True):
    """The body of every error. Where the body of a request has another shape there is no code."""

    detail: str  # a string there too, not FastAPI's list: clients show it as it is
    code: str | UnsetType = UNSET


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    """Give the body of an error."""
    return JinaErrorReply(sentence, row.code or UNSET)
