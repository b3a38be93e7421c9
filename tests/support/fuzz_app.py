"""The server that fuzz tests call, without a socket, and what every answer of it must be."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from checkpoints import write_transformer
from fuzz_inputs import limited_cpu
from msgspec import structs
from openapi_document import DOCUMENT, OPERATIONS, examples

from nearfar import ModelSettings, Settings, create_app
from nearfar.core.settings import BUILTIN_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator

# Words on which the fake engine fails or hangs.
FAULTS = re.compile(rb"boom|nan|zero|few|quit|hang|giant", re.IGNORECASE)
POSTS = [path for path, method in OPERATIONS if method == "post"]
GETS = [path for path, method in OPERATIONS if method in {"get", "head"}]
_UNLOAD = "/admin/models/unload"  # its examples would unload the model of the tests that follow
_NOT_IMPLEMENTED = 501  # routes that Ollama has and this server doesn't
_HEADER_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_HANG_S = 20  # a busy machine may take a second or two


class Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Caller:
    """Calls an application as a server does, in its own event loop."""

    def __init__(self, app: Any, runner: asyncio.Runner) -> None:
        self._app, self._runner = app, runner

    def __call__(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        query: bytes = b"",
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> Answer:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "root_path": "",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), *(headers or [])],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 9000),
            "state": {},
        }
        with limited_cpu():
            return self._runner.run(self._call(scope, body))

    async def _call(self, scope: dict[str, Any], body: bytes) -> Answer:
        sent: list[dict[str, Any]] = []
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        async with asyncio.timeout(_HANG_S):
            await self._app(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(sent[0]["status"], sent[0]["headers"], content)


@pytest.fixture(scope="session")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """Call a server with an embedding model and a reranker, on the engine that runs no model."""
    reranker = write_transformer(tmp_path_factory.mktemp("fuzz") / "reranker", "bert", labels=1)
    models = (ModelSettings(name=BUILTIN_MODEL), ModelSettings(name=str(reranker)))
    with serving(Settings(models=models, engine="fake", cors_origins=("https://app.example",))) as caller:
        yield caller


@contextmanager
def serving(settings: Settings) -> Iterator[Caller]:
    """Run the application, with its models open, in its own event loop."""
    app = create_app(structs.replace(settings, verify=False))
    with asyncio.Runner() as runner:
        ready, over = asyncio.Event(), asyncio.Event()
        lifespan = runner.get_loop().create_task(_lifespan(app, ready, over))
        runner.run(ready.wait())
        yield Caller(app, runner)
        over.set()
        runner.run(asyncio.wait_for(lifespan, 30))


async def _lifespan(app: Any, ready: asyncio.Event, over: asyncio.Event) -> None:
    """Enter and leave the lifespan in one task."""
    async with app.lifespan():
        await app.state.fleet.opened()
        ready.set()
        await over.wait()


def body_examples(path: str) -> list[Any]:
    """Return the documented bodies of a POST."""
    content = DOCUMENT["paths"][path]["post"].get("requestBody", {"content": {}})["content"]
    return [] if path == _UNLOAD else [body for _, body in examples(content)]


def check_answer(answer: Answer) -> None:
    """Assert that it is an answer or a refusal, with legal headers, and JSON by its content type."""
    assert answer.status < 500 or answer.status == _NOT_IMPLEMENTED, answer
    for name, value in answer.headers:
        assert re.fullmatch(rb"[\w-]+", name), answer
        assert _HEADER_VALUE.fullmatch(value), answer
    if (b"content-type", b"application/json; charset=utf-8") in answer.headers and answer.body:
        json.loads(answer.body)
