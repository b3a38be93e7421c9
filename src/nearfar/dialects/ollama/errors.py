"""What goes wrong, in Ollama's words: one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.base import ErrorRow

if TYPE_CHECKING:
    from collections.abc import Callable

_STATUS: dict[type[errors.NearfarError], int] = {
    errors.RequestError: 400,
    errors.InputError: 400,
    errors.MalformedBody: 400,
    errors.BodyTooLarge: 413,
    errors.SlowBody: 408,
    errors.NoModel: 400,
    errors.EmptyInput: 400,
    errors.TooMany: 400,
    errors.TooLong: 400,
    errors.TooManyTokens: 400,
    errors.BadDimensions: 400,
    errors.BadTokenIds: 400,
    errors.UnknownModel: 404,
    errors.WrongTask: 400,
    errors.UnknownPath: 404,
    errors.WrongMethod: 405,
    errors.MissingKey: 401,
    errors.WrongKey: 401,
    errors.Forbidden: 403,
    errors.WrongHost: 403,
    errors.CallerGone: 499,
    errors.ServingError: 500,
    errors.Overloaded: 503,  # Ollama's own status for a full queue
    errors.DeadlinePassed: 504,
    errors.NotReady: 503,
    errors.Draining: 503,
    errors.OutOfMemory: 413,
    errors.EngineFailed: 500,
    errors.InternalFault: 500,
}
ONLY = "this server only embeds and reranks"
_FAILED = "internal server error; the server's log says why"
_TASKS = {"embed": "embeddings", "rank": "rerank"}
_PHRASES: dict[type[errors.NearfarError], Callable[[Any], str]] = {
    errors.TooLong: lambda _: "the input length exceeds the context length",
    errors.UnknownModel: lambda error: f'model "{error.model}" not found, try pulling it first',  # clients search it
    errors.WrongTask: lambda error: f'"{error.model}" does not support {_TASKS.get(error.task, error.task)}',
    errors.UnknownPath: lambda error: f"no such path: {error.method} {error.path}; {ONLY}",
    errors.MissingKey: lambda _: "unauthorized",
    errors.WrongKey: lambda _: "unauthorized",
    errors.Overloaded: lambda _: "server busy, please try again.  maximum pending requests exceeded",
    errors.ServingError: lambda _: _FAILED,
    errors.EngineFailed: lambda _: _FAILED,
    errors.InternalFault: lambda _: _FAILED,
}
ERRORS = {kind: ErrorRow(status, phrase=_PHRASES.get(kind)) for kind, status in _STATUS.items()}


class ErrorReply(Struct):
    """The body of every error: a string, since clients show it as it is."""

    error: str


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    """Give the body of an error."""
    return ErrorReply(sentence)
