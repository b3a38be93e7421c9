"""embed-rerank's own routes, where an answer alone doesn't show that it is true."""

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


async def test_without_normalize_vectors_have_the_length_that_the_model_gives(builtin: httpx.AsyncClient) -> None:
    unit, own = [
        np.array((await builtin.post("/api/v1/embed", json={"texts": ["hello"], **said})).json()["vectors"][0])
        for said in ({}, {"normalize": False})
    ]

    length = np.linalg.norm(own)
    assert 0.1 < abs(length - 1)
    assert unit == pytest.approx(own / length, abs=1e-6)


async def test_any_number_of_texts_is_taken_and_each_is_counted(faked: httpx.AsyncClient) -> None:
    texts = [f"text {'word ' * (number % 7)}{number}" for number in range(1, 300)]

    answer = (await faked.post("/api/v1/embed", json={"texts": texts, "return_processing_info": True})).json()

    told = [one["processing_info"]["processed_tokens"] for one in answer["embeddings"]]
    alone = (await faked.post("/api/v1/embed", json={"texts": texts[5:6]})).json()["usage"]["total_tokens"]
    assert (299, 299) == (answer["num_texts"], len(answer["vectors"]))
    assert (alone, sum(told)) == (told[5], answer["usage"]["total_tokens"])
    assert [one["embedding"] for one in answer["embeddings"]] == answer["vectors"]


async def test_a_batch_answers_as_its_queries_would_be_one_by_one(faked: httpx.AsyncClient) -> None:
    asked = [{"query": query, "passages": PASSAGES, "top_k": 2} for query in ("a cat", "fruit", "the bank")]

    together = (await faked.post("/api/v1/rerank/batch", json=asked)).json()
    single = [(await faked.post("/api/v1/rerank", json=one)).json() for one in asked]

    assert [one["results"] for one in single] == [one["results"] for one in together]
    assert ["a cat", "fruit", "the bank"] == [one["query"] for one in together]


async def test_who_ranks_is_the_model_that_was_made_for_it(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "ranker", "bert", labels=1)
    models = (ModelSettings(name=BUILTIN_MODEL), ModelSettings(name=str(folder)))

    async with running(Settings(models=models, engine="torch", device="cpu")) as app, calling(app) as client:
        told = [(await client.get(f"/api/v1/{work}/info")).json()["backend"] for work in ("embed", "rerank")]
        ranked = (await client.post("/api/v1/rerank", json={"query": "a cat", "passages": PASSAGES})).json()

    assert [BUILTIN_MODEL, "ranker"] == [one["model_name"] for one in told]
    assert ["cross-encoder"] * 2 == [told[1]["method"], ranked["method"]]
    assert "ranker" == ranked["model_info"]
