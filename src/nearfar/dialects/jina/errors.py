"""Jina's errors: a message and, except for invalid bodies, a code."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from nearfar.core import errors
from nearfar.dialects.kit.error_responses import ErrorRow, ErrorTable

_UNAVAILABLE = ErrorRow(code="SERVICE_UNAVAILABLE", message=lambda error: f"Service temporarily unavailable: {error}")
ERRORS: ErrorTable = {
    errors.InputError: ErrorRow(422, message=lambda error: f"Validation error: {error}"),
    errors.ModelRequired: ErrorRow(message=lambda _: "Validation error: Field required: model"),
    errors.TooManyItems: ErrorRow(
        message=lambda error: f"Validation error: each {error.param} list can contain at most {error.limit} items."
    ),
    errors.TextTooLong: ErrorRow(
        400,
        code="INPUT_TOKEN_LIMIT_EXCEEDED",
        message=lambda error: (
            f"Input text exceeds the model's maximum of {error.limit} tokens: text {error.index} has {error.tokens}. "
            "Use 'truncate: true' to have it cut, or split it into smaller chunks."
        ),
    ),
    errors.TooManyTokens: ErrorRow(400, code="INPUT_TOKEN_LIMIT_EXCEEDED"),
    errors.ModelNotFound: ErrorRow(
        400, code="INPUT_MODEL_NOT_FOUND", message=lambda error: f"Model '{error.model}' not found."
    ),
    errors.WrongTask: ErrorRow(code="INPUT_MODEL_NOT_FOUND"),
    errors.PathNotFound: ErrorRow(message=lambda _: "Not Found"),
    errors.MethodNotAllowed: ErrorRow(message=lambda _: "Method Not Allowed"),
    errors.ApiKeyMissing: ErrorRow(
        code="AUTH_MISSING_API_KEY",
        message=lambda _: (
            "Authentication required. Provide your API key via the Authorization header: "
            "'Authorization: Bearer <api-key>'."
        ),
    ),
    errors.ApiKeyInvalid: ErrorRow(code="AUTH_INVALID_API_KEY", message=lambda _: "Invalid API key."),
    errors.ServingError: ErrorRow(code="INTERNAL_ERROR", message=lambda _: "An unexpected error occurred."),
    errors.Overloaded: ErrorRow(code="RATE_TOKEN_LIMIT_EXCEEDED"),
    errors.DeadlineExceeded: ErrorRow(code="SERVICE_TIMEOUT"),
    errors.ModelNotReady: _UNAVAILABLE,
    errors.ShuttingDown: _UNAVAILABLE,
}


class JinaErrorReply(Struct, omit_defaults=True):
    """The body of every error. An invalid request body has no code."""

    detail: str  # always a string, not FastAPI's list: clients show it unchanged
    code: str | UnsetType = UNSET
