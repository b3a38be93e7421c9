"""Four real models under a budget for two, all requested at once: every request gets its own answer."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoints import write_transformer
from conftest import calling, running

from nearfar import ModelSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.anyio

TEXTS = ["the quick brown fox", "a question? an answer!", "numbers 0 1 2", "jumps over the lazy dog", "mañana de otoño"]
QUERY = "what was found"
REQUESTS = 500


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write two embedding models and two rerankers that agree on nothing, all of about one size."""
    at = tmp_path_factory.mktemp("mixed")
    return [
        write_transformer(at / "embeds-1", "bert"),
        write_transformer(at / "embeds-2", "bert", hidden_act="relu"),
        write_transformer(at / "ranks-1", "bert", labels=1),
        write_transformer(at / "ranks-2", "bert", labels=1, hidden_act="relu"),
    ]


def serve(folders: Sequence[Path], **settings: Any) -> Settings:
    models = tuple(ModelSettings(name=str(folder)) for folder in folders)
    return Settings(models=models, engine="torch", device="cpu", dtype="float32", **settings)


async def ask(client: httpx.AsyncClient, model: str, text: str) -> tuple[str, np.ndarray[Any, Any]]:
    """Return the model's name in the answer, and its numbers."""
    if model.startswith("embeds"):
        body: dict[str, Any] = {"model": model, "input": text}
        answer = await client.post("/v1/embeddings", json=body)
        assert 200 == answer.status_code, answer.text
        return answer.json()["model"], np.array(answer.json()["data"][0]["embedding"])
    body = {"model": model, "query": QUERY, "documents": [text, *TEXTS]}
    answer = await client.post("/v2/rerank", json=body)
    assert 200 == answer.status_code, answer.text
    scores = {result["index"]: result["relevance_score"] for result in answer.json()["results"]}
    return model, np.array([scores[index] for index in range(len(TEXTS) + 1)])


@pytest.fixture(scope="module")
async def expected(folders: list[Path]) -> dict[tuple[str, str], np.ndarray[Any, Any]]:
    """Return each model's answer to each text when it is served alone, one request at a time."""
    found = {}
    for folder in folders:
        async with running(serve([folder])) as app, calling(app) as client:
            for text in TEXTS:
                found[folder.name, text] = (await ask(client, folder.name, text))[1]
    return found


async def test_the_references_of_the_models_differ(expected: dict[tuple[str, str], np.ndarray[Any, Any]]) -> None:
    for kind in ("embeds", "ranks"):
        for text in TEXTS:
            assert np.abs(expected[f"{kind}-1", text] - expected[f"{kind}-2", text]).max() > 0.01


@pytest.mark.parametrize("at_once", [REQUESTS, 40], ids=["all at once", "40 at once"])
async def test_of_500_mixed_requests_under_a_budget_for_two_of_four_models_none_is_lost_or_wrong(
    at_once: int,
    folders: list[Path],
    expected: dict[tuple[str, str], np.ndarray[Any, Any]],
) -> None:
    most = max((folder / "model.safetensors").stat().st_size for folder in folders)
    chance = random.Random(at_once)  # noqa: S311 — only has to be the same every time
    asked = [(chance.choice(folders).name, chance.choice(TEXTS)) for _ in range(REQUESTS)]
    few = asyncio.Semaphore(at_once) if at_once < REQUESTS else nullcontext()

    async with running(serve(folders, load="demand", memory_budget=2 * most)) as app, calling(app) as client:

        async def one(model: str, text: str) -> tuple[str, np.ndarray[Any, Any]]:
            async with few:
                return await ask(client, model, text)

        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(one(*question) for question in asked))
        metrics = (await client.get("/metrics")).text
        weights = sum(map(float, re.findall(r"^nearfar_model_weights_bytes\{.*\} (.*)$", metrics, re.MULTILINE)))

    evictions = re.findall(r'^nearfar_model_evictions_total\{.*reason="memory"\} (.*)$', metrics, re.MULTILINE)
    assert REQUESTS == len(answers)
    for (model, text), (answered_by, numbers) in zip(asked, answers, strict=True):
        assert model == answered_by
        np.testing.assert_allclose(expected[model, text], numbers, atol=1e-5)
    assert sum(map(float, evictions)) >= 2
    assert 0 < weights <= 2 * most
