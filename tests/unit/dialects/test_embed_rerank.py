"""embed-rerank's routes, where an answer alone doesn't show that it is correct."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from checkpoints import write_transformer
from conftest import calling, running

from nearfar import ModelSettings, Settings
from nearfar.core.settings import BUILTIN_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.anyio
PASSAGES = ["Bananas are yellow.", "The cat sat on the mat.", "Rates rose."]


async def test_without_normalization_vectors_keep_the_model_s_length(builtin: httpx.AsyncClient) -> None:
    unit, raw = [
        np.array((await builtin.post("/api/v1/embed", json={"texts": ["hello"], **options})).json()["vectors"][0])
        for options in ({}, {"normalize": False})
    ]

    length = np.linalg.norm(raw)
    assert 0.1 < abs(length - 1)
    assert unit == pytest.approx(raw / length, abs=1e-6)


async def test_more_than_100_texts_are_accepted_and_each_is_counted(faked: httpx.AsyncClient) -> None:
    texts = [f"text {'word ' * (number % 7)}{number}" for number in range(1, 300)]

    answer = (await faked.post("/api/v1/embed", json={"texts": texts, "return_processing_info": True})).json()

    tokens = [one["processing_info"]["processed_tokens"] for one in answer["embeddings"]]
    alone = (await faked.post("/api/v1/embed", json={"texts": texts[5:6]})).json()["usage"]["total_tokens"]
    assert (299, 299) == (answer["num_texts"], len(answer["vectors"]))
    assert (alone, sum(tokens)) == (tokens[5], answer["usage"]["total_tokens"])
    assert [one["embedding"] for one in answer["embeddings"]] == answer["vectors"]


async def test_a_batch_answers_as_its_queries_one_by_one(faked: httpx.AsyncClient) -> None:
    bodies = [{"query": query, "passages": PASSAGES, "top_k": 2} for query in ("a cat", "fruit", "the bank")]

    together = (await faked.post("/api/v1/rerank/batch", json=bodies)).json()
    single = [(await faked.post("/api/v1/rerank", json=one)).json() for one in bodies]

    assert [one["results"] for one in single] == [one["results"] for one in together]
    assert ["a cat", "fruit", "the bank"] == [one["query"] for one in together]


async def test_the_default_reranker_is_a_model_trained_to_rank(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "ranker", "bert", labels=1)
    models = (ModelSettings(name=BUILTIN_MODEL), ModelSettings(name=str(folder)))

    async with running(Settings(models=models, engine="torch", device="cpu")) as app, calling(app) as client:
        backends = [(await client.get(f"/api/v1/{work}/info")).json()["backend"] for work in ("embed", "rerank")]
        ranked = (await client.post("/api/v1/rerank", json={"query": "a cat", "passages": PASSAGES})).json()

    assert [BUILTIN_MODEL, "ranker"] == [one["model_name"] for one in backends]
    assert ["cross-encoder"] * 2 == [backends[1]["method"], ranked["method"]]
    assert "ranker" == ranked["model_info"]
