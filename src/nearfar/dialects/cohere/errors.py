"""Our errors in Cohere's words: status and sentence."""

from __future__ import annotations

import uuid

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.base import ErrorRow


def _invalid(error: errors.InputError) -> str:
    return f"invalid request: {error}"


def _phrase_count(error: errors.TooManyItems) -> str:
    if error.param == "documents":
        what = "number of total max chunks (number of documents * max chunks per doc)"
        return f"invalid request: {what} must be less than {error.limit}"
    return f"invalid request: total number of {error.param} must be at most {error.limit} - received {error.count}"


_FAILED = "internal server error"
ERRORS: dict[type[errors.NearfarError], ErrorRow] = {
    errors.RequestError: ErrorRow(400),
    errors.InputError: ErrorRow(400, phrase=_invalid),
    errors.MalformedBody: ErrorRow(400, phrase=lambda error: f"invalid json syntax: {error}"),
    errors.BodyTooLarge: ErrorRow(413, phrase=_invalid),
    errors.BodyTimeout: ErrorRow(408, phrase=_invalid),
    errors.ModelRequired: ErrorRow(400),
    errors.EmptyInput: ErrorRow(400, phrase=_invalid),
    errors.TooManyItems: ErrorRow(400, phrase=_phrase_count),
    errors.TextTooLong: ErrorRow(
        400,
        phrase=lambda error: f"too many tokens: {error}. Use a shorter text, or let truncate be START or END.",
    ),
    errors.TooManyTokens: ErrorRow(400, phrase=lambda error: f"too many tokens: {error}"),
    errors.InvalidDimensions: ErrorRow(
        400,
        phrase=lambda error: (
            f"invalid request: output_dimension must be from 1 to {error.limit} for this model - "
            f"received {error.dimensions}"
        ),
    ),
    errors.InvalidTokenIds: ErrorRow(400, phrase=_invalid),
    errors.ModelNotFound: ErrorRow(
        404,
        phrase=lambda error: (
            f"model '{error.model}' not found, make sure the correct model ID was used and that you "
            "have access to the model."
        ),
    ),
    errors.WrongTask: ErrorRow(400, phrase=lambda error: f"invalid request: {error}"),
    errors.PathNotFound: ErrorRow(404, phrase=lambda _: "404 page not found"),
    errors.MethodNotAllowed: ErrorRow(405),
    errors.ApiKeyMissing: ErrorRow(401, phrase=lambda _: "no api key supplied"),
    errors.ApiKeyInvalid: ErrorRow(401, phrase=lambda _: "invalid api token"),
    errors.Forbidden: ErrorRow(403),
    errors.HostNotAllowed: ErrorRow(403),
    errors.ClientDisconnected: ErrorRow(499),
    errors.ServingError: ErrorRow(500, phrase=lambda _: _FAILED),
    errors.Overloaded: ErrorRow(429),
    errors.DeadlineExceeded: ErrorRow(504),
    errors.ModelNotReady: ErrorRow(503),
    errors.ShuttingDown: ErrorRow(503),
    errors.DeviceOutOfMemory: ErrorRow(413),
    errors.EngineError: ErrorRow(500, phrase=lambda _: _FAILED),
    errors.InternalError: ErrorRow(500, phrase=lambda _: _FAILED),
}


class ErrorReply(Struct):
    """The body of every error. ``detail`` is where clients of Jina and Voyage look, whose rerank has the same path."""

    message: str
    id: str
    detail: str


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    return ErrorReply(sentence, str(uuid.uuid4()), sentence)
