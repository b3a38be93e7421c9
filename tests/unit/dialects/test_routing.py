"""On a path that several dialects share, the fields of the body select the dialect, for errors too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from conftest import ignore
from litestar import Litestar, Response

from nearfar import Settings
from nearfar.batches.activity import Activity
from nearfar.core.errors import InputError, RequestError, ServingError
from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.body.receive import receive_body
from nearfar.dialects.kit.endpoint import PostRoute, json_response
from nearfar.dialects.kit.error_responses import ErrorRow, WireError
from nearfar.dialects.kit.route_docs import RouteDocs
from nearfar.dialects.kit.routing import job_paths
from nearfar.http.access_log import AccessLog
from nearfar.http.gate.cors import Origins
from nearfar.http.gate.drain import Drain
from nearfar.http.gate.gate import RequestGate
from nearfar.http.routes import JobRoute
from nearfar.serving.timeouts import Timeouts
from nearfar.serving.uploads import Uploads
from nearfar.telemetry.masking import KeyMask

if TYPE_CHECKING:
    from nearfar.dialects.kit.request import AnyRequest

pytestmark = pytest.mark.anyio


def dialect_of(name: str, *fields: str, precedence: int = 0) -> Dialect:
    """Return a dialect that replies with its name, to a body with "wrong" or "odd" by an error."""

    async def answer(request: AnyRequest) -> Response[bytes]:
        body = await receive_body(request)
        if b"wrong" in body:
            raise InputError("wrong")
        if b"odd" in body:
            raise ZeroDivisionError
        return json_response(name)

    def render(wire: WireError) -> object:
        return f"{name} says {wire.message}"

    return Dialect(
        name=name,
        errors={RequestError: ErrorRow(418), ServingError: ErrorRow(418)},
        render_error=render,
        prefixes=("/",),
        routes=[
            PostRoute(
                paths=("/shared",),
                fields=fields,
                precedence=precedence,
                handler=answer,
                docs=RouteDocs(summary="Answers"),
            )
        ],
    )


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        ('{"one": 1}', 200, "first"),
        ('{"two": [{"one": 1}]}', 200, "second"),
        ('{"two": "wrong"}', 418, "second says wrong"),
        ('{"one": "wrong"}', 418, "first says wrong"),
        ('{"one": 1, "two": 2}', 200, "second"),  # its precedence is lower
        ('{"neither": 1}', 200, "third"),  # it has no fields
        ("[1]", 200, "third"),
        ("not json", 200, "third"),
        (
            '{"one": "odd"}',
            418,
            "first says the server failed on this request; its log says why under this request's id",
        ),
    ],
)
async def test_the_fields_of_the_body_select_the_dialect(body: str, status: int, answer: str) -> None:
    dialects = [dialect_of("third"), dialect_of("first", "one", precedence=1), dialect_of("second", "two")]
    drain = Drain()
    server: Any = SimpleNamespace(settings=Settings(), fleet=None, timeouts=Timeouts(), uploads=Uploads(1))
    gate, log = (
        RequestGate(server, drain, hosts=None, keys=None, tracing=None),
        AccessLog(ignore, None, drain, Origins(), KeyMask(None, lambda _: False)),
    )
    routes = [JobRoute(path, gate, log, Activity()).handler() for path in job_paths(dialects)]
    app: Any = Litestar(routes, openapi_config=None, logging_config=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://nearfar.test") as client:
        found = await client.post("/shared", content=body)

    assert (status, answer) == (found.status_code, found.json())
