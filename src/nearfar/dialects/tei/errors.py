"""What goes wrong, in TEI's words: a sentence and a kind in PascalCase."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.base import ErrorRow


def _invalid(error: errors.RequestError) -> str:
    return f"Input validation error: {error}"


_MODELS = {
    "embed": "an embedding model",
    "multi_vector": "an embedding model with a vector for each token",
    "sparse": "an embedding model with sparse weights",
    "classify": "a classifier model",
    "rank": "a re-ranker model",
}
_FAILED = ErrorRow(424, "Backend", phrase=lambda _: "Inference failed; the server's log says why")
ERRORS: dict[type[errors.NearfarError], ErrorRow] = {
    errors.RequestError: ErrorRow(422, "Validation", phrase=_invalid),
    errors.InputError: ErrorRow(422, "Validation", phrase=_invalid),
    errors.MalformedBody: ErrorRow(
        400, "Validation", phrase=lambda error: f"Failed to parse the request body: {error}"
    ),
    errors.BodyTooLarge: ErrorRow(413, "Validation"),
    errors.BodyTimeout: ErrorRow(408, "Validation"),
    errors.ModelRequired: ErrorRow(422, "Validation", phrase=_invalid),
    errors.EmptyInput: ErrorRow(400, "Empty"),
    errors.TooManyItems: ErrorRow(
        422,
        "Validation",
        phrase=lambda error: f"batch size {error.count} > maximum allowed batch size {error.limit}",
    ),
    errors.TextTooLong: ErrorRow(
        422,
        "Validation",
        phrase=lambda error: (
            f"Input validation error: `inputs` must have at most {error.limit} tokens. Given: {error.tokens}"
        ),
    ),
    errors.TooManyTokens: ErrorRow(422, "Validation", phrase=_invalid),
    errors.InvalidDimensions: ErrorRow(422, "Validation", phrase=_invalid),
    errors.InvalidTokenIds: ErrorRow(422, "Tokenizer"),
    errors.ModelNotFound: ErrorRow(404, "Validation"),
    errors.WrongTask: ErrorRow(
        422, "Validation", phrase=lambda error: f"model {error.model} is not {_MODELS.get(error.task, 'for that')}"
    ),
    errors.PathNotFound: ErrorRow(404, "Validation"),
    errors.MethodNotAllowed: ErrorRow(405, "Validation"),
    errors.ApiKeyMissing: ErrorRow(401, "Unauthorized"),
    errors.ApiKeyInvalid: ErrorRow(401, "Unauthorized"),
    errors.Forbidden: ErrorRow(403, "Unauthorized"),
    errors.HostNotAllowed: ErrorRow(403, "Unauthorized"),
    errors.ClientDisconnected: ErrorRow(499, "Validation"),
    errors.ServingError: _FAILED,
    errors.Overloaded: ErrorRow(429, "Overloaded", phrase=lambda _: "Model is overloaded"),
    errors.DeadlineExceeded: ErrorRow(504, "Backend"),
    errors.ModelNotReady: ErrorRow(503, "Unhealthy"),
    errors.ShuttingDown: ErrorRow(503, "Unhealthy"),
    errors.DeviceOutOfMemory: ErrorRow(413, "Validation"),
    errors.EngineError: _FAILED,
    errors.InternalError: _FAILED,
}


class ErrorReply(Struct):
    """The body of every error: a sentence and its kind."""

    error: str
    error_type: str


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    """Give the body of an error."""
    return ErrorReply(sentence, row.kind)
