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
    errors.BodyTimeout: 408,
    errors.ModelRequired: 400,
    errors.EmptyInput: 400,
    errors.TooManyItems: 400,
    errors.TextTooLong: 400,
    errors.TooManyTokens: 400,
    errors.InvalidDimensions: 400,
    errors.InvalidTokenIds: 400,
    errors.ModelNotFound: 404,
    errors.WrongTask: 400,
    errors.PathNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.ApiKeyMissing: 401,
    errors.ApiKeyInvalid: 401,
    errors.Forbidden: 403,
    errors.HostNotAllowed: 403,
    errors.ClientDisconnected: 499,
    errors.ServingError: 500,
    errors.Overloaded: 503,  # Ollama's own status for a full queue
    errors.DeadlineExceeded: 504,
    errors.ModelNotReady: 503,
    errors.ShuttingDown: 503,
    errors.DeviceOutOfMemory: 413,
    errors.EngineError: 500,
    errors.InternalError: 500,
}
ONLY = "this server only embeds and reranks"
_FAILED = "internal server error; the server's log says why"
_TASKS = {"embed": "embeddings", "rank": "rerank"}
_PHRASES: dict[type[errors.NearfarError], Callable[[Any], str]] = {
    errors.TextTooLong: lambda _: "the input length exceeds the context length",
    errors.ModelNotFound: lambda error: f'model "{error.model}" not found, try pulling it first',  # clients search it
    errors.WrongTask: lambda error: f'"{error.model}" does not support {_TASKS.get(error.task, error.task)}',
    errors.PathNotFound: lambda error: f"no such path: {error.method} {error.path}; {ONLY}",
    errors.ApiKeyMissing: lambda _: "unauthorized",
    errors.ApiKeyInvalid: lambda _: "unauthorized",
    errors.Overloaded: lambda _: "server busy, please try again.  maximum pending requests exceeded",
    errors.ServingError: lambda _: _FAILED,
    errors.EngineError: lambda _: _FAILED,
    errors.InternalError: lambda _: _FAILED,
}
ERRORS = {kind: ErrorRow(status, phrase=_PHRASES.get(kind)) for kind, status in _STATUS.items()}


class ErrorReply(Struct):
    """The body of every error: a string, since clients show it as it is."""

    error: str


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    """Give the body of an error."""
    return ErrorReply(sentence)
