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
    errors.SlowBody: ErrorRow(408),
    errors.NoModel: _WRONG,
    errors.EmptyInput: _WRONG,
    errors.TooMany: ErrorRow(
        400,
        phrase=lambda error: (
            f"{_NOT_SPECIFIED} Error for argument '{error.param}': "
            f"the list has {error.count} items; at most {error.limit} are allowed"
        ),
    ),
    errors.TooLong: ErrorRow(
        400,
        phrase=lambda error: (
            f"The example at index {error.index} in your batch has too many tokens and does not fit into the model's "
            f"context window of {error.limit} tokens. Please lower the number of tokens in the listed example(s) or "
            "use truncation."
        ),
    ),
    errors.TooManyTokens: ErrorRow(400),
    errors.BadDimensions: ErrorRow(
        400,
        phrase=lambda error: (
            f"{_NOT_SPECIFIED} Error for argument 'output_dimension': "
            f"must be from 1 to {error.limit} for this model, not {error.dimensions}"
        ),
    ),
    errors.BadTokenIds: _WRONG,
    # The vendor doesn't say 404 here, and its client has no class for that.
    errors.UnknownModel: ErrorRow(400, phrase=lambda error: f"Model {error.model} is not supported."),
    errors.WrongTask: ErrorRow(400),
    errors.UnknownPath: ErrorRow(404, phrase=lambda _: "Not Found"),
    errors.WrongMethod: ErrorRow(405, phrase=lambda _: "Method Not Allowed"),
    errors.MissingKey: ErrorRow(401),
    errors.WrongKey: ErrorRow(401, phrase=lambda _: "Provided API key is invalid."),
    errors.Forbidden: ErrorRow(403),
    errors.WrongHost: ErrorRow(403),
    errors.CallerGone: ErrorRow(499),
    errors.ServingError: _FAILED,
    errors.Overloaded: ErrorRow(429),
    errors.DeadlinePassed: ErrorRow(504),
    errors.NotReady: ErrorRow(503),
    errors.Draining: ErrorRow(503),
    errors.OutOfMemory: ErrorRow(413),
    errors.EngineFailed: _FAILED,
    errors.InternalFault: _FAILED,
}


class VoyageErrorReply(Struct):
    """The body of every error."""

    detail: str


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    """Give the body of an error."""
    return VoyageErrorReply(sentence)
