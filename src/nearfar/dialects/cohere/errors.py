"""Our errors in Cohere's words: status and sentence."""

from __future__ import annotations

import uuid

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.base import ErrorRow


def _invalid(error: errors.InputError) -> str:
    return f"invalid request: {error}"


def _phrase_count(error: errors.TooMany) -> str:
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
    errors.SlowBody: ErrorRow(408, phrase=_invalid),
    errors.NoModel: ErrorRow(400),
    errors.EmptyInput: ErrorRow(400, phrase=_invalid),
    errors.TooMany: ErrorRow(400, phrase=_phrase_count),
    errors.TooLong: ErrorRow(
        400,
        phrase=lambda error: f"too many tokens: {error}. Use a shorter text, or let truncate be START or END.",
    ),
    errors.TooManyTokens: ErrorRow(400, phrase=lambda error: f"too many tokens: {error}"),
    errors.BadDimensions: ErrorRow(
        400,
        phrase=lambda error: (
            f"invalid request: output_dimension must be from 1 to {error.limit} for this model - "
            f"received {error.dimensions}"
        ),
    ),
    errors.BadTokenIds: ErrorRow(400, phrase=_invalid),
    errors.UnknownModel: ErrorRow(
        404,
        phrase=lambda error: (
            f"model '{error.model}' not found, make sure the correct model ID was used and that you "
            "have access to the model."
        ),
    ),
    errors.WrongTask: ErrorRow(400, phrase=lambda error: f"invalid request: {error}"),
    errors.UnknownPath: ErrorRow(404, phrase=lambda _: "404 page not found"),
    errors.WrongMethod: ErrorRow(405),
    errors.MissingKey: ErrorRow(401, phrase=lambda _: "no api key supplied"),
    errors.WrongKey: ErrorRow(401, phrase=lambda _: "invalid api token"),
    errors.Forbidden: ErrorRow(403),
    errors.WrongHost: ErrorRow(403),
    errors.CallerGone: ErrorRow(499),
    errors.ServingError: ErrorRow(500, phrase=lambda _: _FAILED),
    errors.Overloaded: ErrorRow(429),
    errors.DeadlinePassed: ErrorRow(504),
    errors.NotReady: ErrorRow(503),
    errors.Draining: ErrorRow(503),
    errors.OutOfMemory: ErrorRow(413),
    errors.EngineFailed: ErrorRow(500, phrase=lambda _: _FAILED),
    errors.InternalFault: ErrorRow(500, phrase=lambda _: _FAILED),
}


class ErrorReply(Struct):
    """The body of every error. ``detail`` is where clients of Jina and Voyage look, whose rerank has the same path."""

    message: str
    id: str
    detail: str


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    return ErrorReply(sentence, str(uuid.uuid4()), sentence)
