"""A dialect in one file: POST /demo/embed takes ``{"text": ...}`` and returns its vector."""

from __future__ import annotations

import msgspec

from nearfar.dialects import (
    Dialect,
    Embedded,
    EmbedJob,
    EmptyInput,
    Endpoint,
    ErrorRow,
    RouteDocs,
    Service,
    WireError,
    render_rows,
)


class DemoRequest(msgspec.Struct):
    """The body of POST /demo/embed."""

    text: str


class DemoReply(msgspec.Struct):
    """The body of a response."""

    vector: msgspec.Raw
    tokens: int


class DemoError(msgspec.Struct):
    """The body of every error."""

    problem: str


def _to_job(body: DemoRequest) -> EmbedJob:
    if not body.text:
        raise EmptyInput("text is empty")
    return EmbedJob(model=None, inputs=(body.text,))


def _reply(_: DemoRequest, __: EmbedJob, done: Embedded) -> DemoReply:
    return DemoReply(vector=render_rows(done)[0], tokens=done.usage.tokens)


def _render_error(wire: WireError) -> DemoError:
    return DemoError(wire.message)


_EMBED = Endpoint(
    docs=RouteDocs(
        summary="The vector of a text",
        body=DemoRequest,
        example={"text": "a cat"},
        reply=DemoReply,
        reply_example={"vector": [0.6, -0.8], "tokens": 4},
    ),
    to_job=_to_job,
    call=Service.embed,
    reply=_reply,
)

dialect = Dialect(
    name="demo",
    routes=[_EMBED.route("/demo/embed")],
    errors={EmptyInput: ErrorRow(422)},
    render_error=_render_error,
    error_reply=DemoError,
    about="A demonstration.",
    prefixes=("/demo",),
)
