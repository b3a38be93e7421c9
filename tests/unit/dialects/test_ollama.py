"""Ollama's routes that load, unload and list models."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import calling, running

from nearfar import Settings
from nearfar.core.settings import BUILTIN_MODEL, ModelSettings

pytestmark = pytest.mark.anyio
CLOSED = {"model": BUILTIN_MODEL, "response": "", "done": True, "done_reason": "unload"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"keep_alive": 0}),
        ("/api/generate", {"keep_alive": "0s", "prompt": ""}),
        ("/api/chat", {"keep_alive": 0, "messages": []}),
        ("/api/embed", {"keep_alive": 0}),
        ("/api/embed", {"keep_alive": "0m", "input": []}),
    ],
)
async def test_keep_alive_0_without_input_unloads_the_model_and_an_empty_input_loads_it(
    path: str, body: dict[str, Any]
) -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        before = await client.get("/api/ps")
        answer = await client.post(path, json={"model": BUILTIN_MODEL, **body})
        after = await client.get("/api/ps")
        await client.post("/api/embed", json={"model": BUILTIN_MODEL, "input": []})
        again = await client.get("/api/ps")

    assert [1, 0, 1] == [len(listing.json()["models"]) for listing in (before, after, again)]
    assert answer.json().items() >= ({"embeddings": []} if path == "/api/embed" else CLOSED).items()


@pytest.mark.parametrize("keep_alive", [0, "0", "5m", -1, None])
async def test_keep_alive_with_input_has_no_effect(
    keep_alive: float | str | None,
) -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        answer = await client.post("/api/embed", json={"model": BUILTIN_MODEL, "input": "a", "keep_alive": keep_alive})
        listing = await client.get("/api/ps")

    assert 1 == len(answer.json()["embeddings"])
    assert 1 == len(listing.json()["models"])


async def test_a_model_expires_after_its_idle_timeout() -> None:
    async with running(Settings(engine="fake", idle_timeout_s=600)) as app, calling(app) as client:
        requested_at = datetime.now(UTC)
        listing = await client.get("/api/ps")

    expires_at = datetime.fromisoformat(listing.json()["models"][0]["expires_at"])
    assert 500 < (expires_at - requested_at).total_seconds() <= 601


async def test_all_names_of_a_model_have_one_digest() -> None:
    model = ModelSettings(name=BUILTIN_MODEL, aliases=("all-minilm",))
    async with running(Settings(models=(model,), engine="fake")) as app, calling(app) as client:
        tags = await client.get("/api/tags")
        loaded = await client.get("/api/ps")

    names = {listed["name"]: listed["digest"] for listed in tags.json()["models"]}
    (digest,) = {*names.values(), loaded.json()["models"][0]["digest"]}
    assert {f"{BUILTIN_MODEL}:latest", "all-minilm:latest"} == names.keys()
    assert re.fullmatch("[0-9a-f]{64}", digest)


async def test_load_duration_is_the_wait_for_the_model() -> None:
    async with running(Settings(engine="fake", load="demand")) as app, calling(app) as client:
        first, second = [
            (await client.post("/api/embed", json={"model": BUILTIN_MODEL, "input": "a"})).json() for _ in range(2)
        ]

    assert first["load_duration"] > second["load_duration"]
    assert all(0 < answer["load_duration"] < answer["total_duration"] for answer in (first, second))
