"""Voyage's errors: one message."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.error_responses import ErrorRow, ErrorTable

_NOT_SPECIFIED = "The request body is not valid JSON, or some arguments were not specified properly. In particular,"


def _invalid(error: errors.InputError) -> str:
    """Name the argument, where it is known."""
    return (
        f"{_NOT_SPECIFIED} Error for argument '{error.param}': {error}" if error.param else f"{_NOT_SPECIFIED} {error}"
    )


ERRORS: ErrorTable = {
    errors.InputError: ErrorRow(message=_invalid),
    errors.ModelRequired: ErrorRow(message=lambda _: f"{_NOT_SPECIFIED} Error for argument 'model': Field required"),
    errors.TooManyItems: ErrorRow(
        message=lambda error: (
            f"{_NOT_SPECIFIED} Error for argument '{error.param}': "
            f"the list has {error.count} items; at most {error.limit} are allowed"
        )
    ),
    errors.TextTooLong: ErrorRow(
        message=lambda error: (
            f"The example at index {error.index} in your batch has too many tokens and does not fit into the model's "
            f"context window of {error.limit} tokens. Please lower the number of tokens in the listed example(s) or "
            "use truncation."
        )
    ),
    errors.TooManyTokens: ErrorRow(),
    errors.InvalidDimensions: ErrorRow(
        message=lambda error: (
            f"{_NOT_SPECIFIED} Error for argument 'output_dimension': "
            f"must be from 1 to {error.limit} for this model, not {error.dimensions}"
        )
    ),
    # Voyage doesn't answer 404, and its client has no class for that.
    errors.ModelNotFound: ErrorRow(400, message=lambda error: f"Model {error.model} is not supported."),
    errors.PathNotFound: ErrorRow(message=lambda _: "Not Found"),
    errors.MethodNotAllowed: ErrorRow(message=lambda _: "Method Not Allowed"),
    errors.ApiKeyInvalid: ErrorRow(message=lambda _: "Provided API key is invalid."),
    errors.ServingError: ErrorRow(message=lambda _: "Something went wrong on our end; the server's log says what."),
}


class VoyageErrorReply(Struct):
    """The body of every error."""

    detail: str
