"""Errors as Ollama reports them: one message."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.error_responses import ErrorRow, ErrorTable

SUPPORTED = "this server only embeds and reranks"
_TASKS = {"embed": "embeddings", "rank": "rerank"}
ERRORS: ErrorTable = {
    errors.TextTooLong: ErrorRow(message=lambda _: "the input length exceeds the context length"),
    errors.ModelNotFound: ErrorRow(  # clients search the message for "not found"
        message=lambda error: f'model "{error.model}" not found, try pulling it first'
    ),
    errors.WrongTask: ErrorRow(
        message=lambda error: f'"{error.model}" does not support {_TASKS.get(error.task, error.task)}'
    ),
    errors.PathNotFound: ErrorRow(message=lambda error: f"no such path: {error.method} {error.path}; {SUPPORTED}"),
    errors.ApiKeyMissing: ErrorRow(message=lambda _: "unauthorized"),
    errors.ApiKeyInvalid: ErrorRow(message=lambda _: "unauthorized"),
    errors.ServingError: ErrorRow(message=lambda _: "internal server error; the server's log says why"),
    errors.Overloaded: ErrorRow(
        503, message=lambda error: f"server busy, please try again.  maximum pending requests exceeded: {error}"
    ),
}


class ErrorReply(Struct):
    """The body of every error. Clients show the message to users as it is."""

    error: str
