"""Cohere's errors: status and message."""

from __future__ import annotations

import uuid

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.error_responses import ErrorRow, ErrorTable, WireError

# A job's fields → Cohere's
_FIELDS = {"max_tokens_per_document": "max_tokens_per_doc", "max_chunks_per_document": "max_chunks_per_doc"}


def _invalid(error: errors.RequestError) -> str:
    message = str(error)
    for field, name in _FIELDS.items():
        message = message.replace(field, name)
    return f"invalid request: {message}"


def _count_message(error: errors.TooManyItems) -> str:
    if error.param == "documents":
        what = "number of total max chunks (number of documents * max chunks per doc)"
        return f"invalid request: {what} must be less than {error.limit}"
    return f"invalid request: total number of {error.param} must be at most {error.limit} - received {error.count}"


ERRORS: ErrorTable = {
    errors.InputError: ErrorRow(message=_invalid),
    errors.MalformedBody: ErrorRow(message=lambda error: f"invalid json syntax: {error}"),
    errors.BodyTooLarge: ErrorRow(message=_invalid),
    errors.BodyTimeout: ErrorRow(message=_invalid),
    errors.ModelRequired: ErrorRow(message=lambda _: "a model parameter is required for this endpoint."),
    errors.TooManyItems: ErrorRow(message=_count_message),
    errors.TextTooLong: ErrorRow(
        message=lambda error: f"too many tokens: {error}. Use a shorter text, or set truncate to START or END."
    ),
    errors.TooManyTokens: ErrorRow(message=lambda error: f"too many tokens: {error}"),
    errors.InvalidDimensions: ErrorRow(
        message=lambda error: (
            f"invalid request: output_dimension must be from 1 to {error.limit} for this model - "
            f"received {error.dimensions}"
        )
    ),
    errors.ModelNotFound: ErrorRow(
        message=lambda error: (
            f"model '{error.model}' not found, make sure the correct model ID was used and that you "
            "have access to the model."
        )
    ),
    errors.WrongTask: ErrorRow(message=_invalid),
    errors.PathNotFound: ErrorRow(message=lambda _: "404 page not found"),
    errors.ApiKeyMissing: ErrorRow(message=lambda _: "no api key supplied"),
    errors.ApiKeyInvalid: ErrorRow(message=lambda _: "invalid api token"),
    errors.ServingError: ErrorRow(message=lambda _: "internal server error"),
}


class ErrorReply(Struct):
    """The body of every error. Jina's and Voyage's clients, which send rerank requests here, read ``detail``."""

    message: str
    id: str
    detail: str


def render_error(wire: WireError) -> object:
    """Return the body of an error."""
    return ErrorReply(wire.message, str(uuid.uuid4()), wire.message)
