"""What goes wrong, in Voyage's words: one sentence."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.base import ErrorRow

_NOT_SPECIFIED = "The request body is not valid JSON, or some arguments were not specified properly. In particular,"


def _invalid(error: errors.InputError) -> str:
    """Name the argument, unless it can't be told which it was."""
    return (
        f"{_NOT_SPECIFIED} Error for argument '{error.param}': {error}" if error.param else f"{_NOT_SPECIFIED} {error}"
    )


_WRONG = ErrorRow(400, phrase=_invalid)
_FAILED = ErrorRow(500, phrase=lambda _: "Something went wrong on our end; the server's log says what.")
ERRORS: dict[type[errors.NearfarError], ErrorRow] = {
    errors.RequestError: ErrorRow(400),
    errors.InputError: _WRONG,
    errors.MalformedBody: _WRONG,
    errors.BodyTooLarge: ErrorRow(413),
    errors.BodyTimeout: ErrorRow(408),
    errors.ModelRequired: _WRONG,
    errors.EmptyInput: _WRONG,
    errors.TooManyItems: ErrorRow(
        400,
        phrase=lambda error: (
            f"{_NOT_SPECIFIED} Error for argument '{error.param}': "
            f"the list has {error.count} items; at most {error.limit} are allowed"
        ),
    ),
    errors.TextTooLong: ErrorRow(
        400,
        phrase=lambda error: (
            f"The example at index {error.index} in your batch has too many tokens and does not fit into the model's "
            f"context window of {error.limit} tokens. Please lower the number of tokens in the listed example(s) or "
            "use truncation."
        ),
    ),
    errors.TooManyTokens: ErrorRow(400),
    errors.InvalidDimensions: ErrorRow(
        400,
        phrase=lambda error: (
            f"{_NOT_SPECIFIED} Error for argument 'output_dimension': "
            f"must be from 1 to {error.limit} for this model, not {error.dimensions}"
        ),
    ),
    errors.InvalidTokenIds: _WRONG,
    # The vendor doesn't say 404 here, and its client has no class for that.
    errors.ModelNotFound: ErrorRow(400, phrase=lambda error: f"Model {error.model} is not supported."),
    errors.WrongTask: ErrorRow(400),
    errors.PathNotFound: ErrorRow(404, phrase=lambda _: "Not Found"),
    errors.MethodNotAllowed: ErrorRow(405, phrase=lambda _: "Method Not Allowed"),
    errors.ApiKeyMissing: ErrorRow(401),
    errors.ApiKeyInvalid: ErrorRow(401, phrase=lambda _: "Provided API key is invalid."),
    errors.Forbidden: ErrorRow(403),
    errors.HostNotAllowed: ErrorRow(403),
    errors.ClientDisconnected: ErrorRow(499),
    errors.ServingError: _FAILED,
    errors.Overloaded: ErrorRow(429),
    errors.DeadlineExceeded: ErrorRow(504),
    errors.ModelNotReady: ErrorRow(503),
    errors.ShuttingDown: ErrorRow(503),
    errors.DeviceOutOfMemory: ErrorRow(413),
    errors.EngineError: _FAILED,
    errors.InternalError: _FAILED,
}


class VoyageErrorReply(Struct):
    """The body of every error."""

    detail: str


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    """Give the body of an error."""
    return VoyageErrorReply(sentence)
