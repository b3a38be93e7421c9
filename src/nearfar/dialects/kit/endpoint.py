"""Endpoint: how one POST is answered. Decode the body, build the job, run it, render the reply, record the usage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

import msgspec
from litestar import Response
from msgspec import Struct

from nearfar.core.caller import Caller
from nearfar.core.errors import InputError, MalformedBody
from nearfar.core.jobs import Embedded, Represented, Result, Tokenized
from nearfar.core.types import Task
from nearfar.dialects.kit.body.decode import decode_json
from nearfar.dialects.kit.body.foreign_fields import refuse_field, with_refusals
from nearfar.dialects.kit.body.receive import receive_body
from nearfar.dialects.kit.checks import FIELDS, decode_part, shape_error
from nearfar.dialects.kit.combined import CombinedResult
from nearfar.dialects.kit.rendering import Binary, encode_reply
from nearfar.dialects.kit.request import AnyRequest, caller_of, cancel_on_disconnect
from nearfar.dialects.kit.route_docs import RouteDocs
from nearfar.serving.answers import LARGE_ANSWER
from nearfar.serving.service import Service

_ITEM = 32  # an item with a score takes as long to render as so many numbers
TRUNCATED = "x-nearfar-truncated-tokens"
Body = TypeVar("Body")
Job = TypeVar("Job")
Done = TypeVar("Done")


class PostRoute(Struct, frozen=True, kw_only=True):
    """POST paths of a dialect. On a path that several dialects have, a body with one of ``fields`` is for this one.

    With ``tasks``, it is only for a model that has no other tasks. Routes are matched in ascending ``precedence``. A
    body that matches none goes to the route without fields.
    """

    paths: tuple[str, ...]
    fields: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()
    precedence: int = 0
    handler: Callable[[AnyRequest], Awaitable[Response[bytes]]]
    docs: RouteDocs
    # The endpoint that ``handler`` is a method of, if it is one.
    endpoint: Endpoint[Any, Any, Any] | None = None

    @property
    def embeds(self) -> bool:
        """Return whether the route does nothing but run an EmbedJob with the caller's own priority."""
        return self.endpoint is not None and self.endpoint.call is Service.embed and not self.endpoint.priority


class Endpoint(Struct, Generic[Body, Job, Done], frozen=True, dict=True):
    """How one POST is answered."""

    docs: RouteDocs
    # Raises an InputError for a body that breaks a rule of the protocol.
    to_job: Callable[[Body], Job]
    # A method of Service, such as ``Service.embed``.
    call: Callable[[Service, Job, Caller], Coroutine[Any, Any, Done]]
    # Returns the response body for msgspec to encode. Runs in a thread when it has many numbers to render.
    reply: Callable[[Body, Job, Done], object]
    # The vendor's own headers.
    headers: Callable[[AnyRequest, Job, Done], dict[str, str]] = lambda *_: {}
    # The error for JSON of another shape than the decoder's.
    shape_error: Callable[[msgspec.ValidationError], InputError] = shape_error
    # Repairs a body that isn't UTF-8, where the vendor's server reads it. Others refuse it.
    repair: Callable[[bytes], bytes] | None = None
    # The priority that the body asks for, where the protocol has one.
    priority: Callable[[Body], int | None] | None = None

    @cached_property
    def decoder(self) -> msgspec.json.Decoder[Body]:
        """Return the decoder of the documented body.

        Like pydantic's, it reads numbers and booleans that are written as strings, and whole floats as integers. It
        refuses fields of other protocols that would change numbers.
        """
        body = with_refusals(self.docs.body) if self.docs.counts else self.docs.body
        return msgspec.json.Decoder(body, strict=False, dec_hook=refuse_field)

    async def answer(self, request: AnyRequest) -> Response[bytes]:
        """Answer a request, once its body is received. Raises a NearfarError, which the dialect converts."""
        state: dict[str, Any] = request.scope["state"]
        body, job = self.parse(state["body"])
        caller = caller_of(request.scope, self.priority(body) if self.priority else None)
        service: Service = state["server"].service
        with cancel_on_disconnect(request):
            done = await self.call(service, job, caller)
            numbers, render = numbers_of(done), partial(self.reply, body, job, done)
            if numbers <= LARGE_ANSWER:
                encoded = await encode_reply(numbers, render)
            else:
                async with service.unread.room_for(numbers):
                    encoded = await encode_reply(numbers, render)
        headers = self.headers(request, job, done)
        if isinstance(done, Result):
            headers |= record_usage(request, done)
        if isinstance(encoded, Binary):
            about = {"metadata": encoded.metadata} if encoded.metadata else {}
            return Response(encoded.content, headers=headers | about, media_type="application/octet-stream")
        return encoded_response(encoded, headers=headers)

    def parse(self, received: bytes) -> tuple[Body, Job]:
        """Decode a body, and convert it to a job. Raises an InputError for one that breaks a rule."""
        try:
            try:
                body = decode_json(received, self.decoder)
            except MalformedBody as error:
                body = self._decode_repaired(received, error)
            return body, self.to_job(body)
        except msgspec.ValidationError as error:
            raise self.shape_error(error) from error

    def _decode_repaired(self, body: bytes, error: MalformedBody) -> Body:
        if self.repair is None or not isinstance(error.__cause__, UnicodeDecodeError):
            raise error
        return decode_json(self.repair(body), self.decoder)

    async def answer_for(self, request: AnyRequest, model: str) -> Response[bytes]:
        """Answer one request for the model that its path names; that comes before a name in the body."""
        fields = decode_part(await receive_body(request), FIELDS)
        fields["model"] = msgspec.Raw(msgspec.json.encode(model))
        request.scope["state"]["body"] = msgspec.json.encode(fields)
        return await self.answer(request)

    def route(self, *paths: str, **options: Any) -> PostRoute:
        """Build the route of these paths."""
        return PostRoute(paths=paths, handler=self.answer, docs=self.docs, endpoint=self, **options)


def numbers_of(done: object) -> int:
    """Return how many numbers there are to render."""
    if isinstance(done, Embedded):
        return done.vectors.size
    if isinstance(done, Represented):
        arrays = [(one.dense, one.multi_vector, one.sparse and one.sparse.values) for one in done.texts]
        return sum(array.size for row in arrays for array in row if array is not None)
    if isinstance(done, CombinedResult):
        return sum(map(numbers_of, done.results))
    if isinstance(done, Tokenized):
        return sum(len(text.tokens) for text in done.texts) * _ITEM
    return done.inputs * _ITEM if isinstance(done, Result) else 0


def record_usage(request: AnyRequest, done: Result) -> dict[str, str]:
    """Record for the access log what was done, and return the header that reports truncation to the client."""
    state: dict[str, Any] = request.scope["state"]
    cut = done.usage.truncated_tokens
    state["timings"] = done.timings
    state["done"] = {"model": done.info.name, "rows": done.inputs, "tokens": done.usage.tokens, "cut": cut}
    return {TRUNCATED: str(cut)}


def json_response(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """Return a response with the body encoded as UTF-8 JSON."""
    return encoded_response(msgspec.json.encode(body), status, headers)


def encoded_response(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """Return a response with a body that is UTF-8 JSON already."""
    return Response(body, status_code=status, headers=headers, media_type="application/json; charset=utf-8")
