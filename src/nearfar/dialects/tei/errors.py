"""Errors as TEI reports them: a message and a type in PascalCase."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.error_responses import ErrorRow, ErrorTable, WireError

_MODELS = {
    "embed": "an embedding model",
    "multi_vector": "an embedding model with a vector for each token",
    "sparse": "an embedding model with sparse weights",
    "classify": "a classifier model",
    "rank": "a re-ranker model",
}
_KINDS = {401: "Unauthorized", 403: "Unauthorized", 424: "Backend", 429: "Overloaded", 503: "Unhealthy", 504: "Backend"}
ERRORS: ErrorTable = {
    errors.RequestError: ErrorRow(422, message=lambda error: f"Input validation error: {error}"),
    errors.MalformedBody: ErrorRow(400, message=lambda error: f"Failed to parse the request body: {error}"),
    errors.EmptyInput: ErrorRow(400, "Empty"),
    errors.TooManyItems: ErrorRow(
        message=lambda error: f"batch size {error.count} > maximum allowed batch size {error.limit}"
    ),
    errors.TextTooLong: ErrorRow(
        message=lambda error: (
            f"Input validation error: `inputs` must have at most {error.limit} tokens. Given: {error.tokens}"
        )
    ),
    errors.InvalidTokenIds: ErrorRow(kind="Tokenizer"),
    errors.WrongTask: ErrorRow(
        message=lambda error: f"model {error.model} is not {_MODELS.get(error.task, 'for that')}"
    ),
    errors.ServingError: ErrorRow(424, message=lambda _: "Inference failed; the server's log says why"),
    errors.Overloaded: ErrorRow(message=lambda error: f"Model is overloaded: {error}"),
}


class ErrorReply(Struct):
    """The body of every error."""

    error: str
    error_type: str


def render_error(wire: WireError) -> object:
    """Return the body of an error."""
    return ErrorReply(wire.message, wire.kind or _KINDS.get(wire.status, "Validation"))
