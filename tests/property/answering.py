"""What the fuzz tests ask: a server, called without a socket, and the files of a model."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from checkpoints import write_files, write_steps, write_transformer

from nearfar import ModelSettings, Settings, create_app
from nearfar.core.settings import BUILTIN_MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_MOST_S = 20  # then it hangs; a busy machine may take a second or two


class Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Caller:
    """Calls an application as a server does, in a loop of its own."""

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

        async with asyncio.timeout(_MOST_S):
            await self._app(scope, receive, send)
        said = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(sent[0]["status"], sent[0]["headers"], said)


@pytest.fixture(scope="session")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Answer]]:
    """Call a server with an embedding model and a reranker, on the engine that runs no model."""
    reranker = write_transformer(tmp_path_factory.mktemp("fuzz") / "reranker", "bert", labels=1)
    models = (ModelSettings(name=BUILTIN_MODEL), ModelSettings(name=str(reranker)))
    app = create_app(Settings(models=models, engine="fake", cors_origins=("https://app.example",)))
    with asyncio.Runner() as runner:
        ready, over = asyncio.Event(), asyncio.Event()
        serving = runner.get_loop().create_task(_serve(app, ready, over))
        runner.run(ready.wait())
        yield Caller(app, runner)
        over.set()
        runner.run(asyncio.wait_for(serving, 30))


async def _serve(app: Any, ready: asyncio.Event, over: asyncio.Event) -> None:
    """Enter and leave the lifespan in one task."""
    async with app.lifespan():
        await app.state.fleet.opened()
        ready.set()
        await over.wait()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@cache
def _sample(place: Path) -> Path:
    folder = write_transformer(place / "sample", "bert")
    write_steps(folder, "mean")
    write_files(
        folder,
        {
            "sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": True},
            "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "default_prompt_name": "query"},
            "model.safetensors.index.json": {"weight_map": {"a": "model.safetensors"}},
            "tokenizer_config.json": {"model_max_length": 48, "do_lower_case": True, "chat_template": "{{ messages }}"},
            "special_tokens_map.json": {"pad_token": "[PAD]"},
            "3_Normalize/config.json": {},
        },
    )
    return folder


@pytest.fixture
def sample(place: Path) -> Path:
    return _sample(place)
