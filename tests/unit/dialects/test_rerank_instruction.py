"""``instruction`` in a rerank request, our extension of other protocols, reaches rerankers that take one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conftest import calling, running
from llm_reranker_models import DOCUMENTS, INSTRUCTION, QUERY, open_llm_reranker, write_llm_reranker

from nearfar import Settings
from nearfar.core.settings import ModelSettings

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.anyio
PATHS = ["/v1/rerank", "/v2/rerank", "/rerank", "/api/rerank"]
BODY = {"model": "judge", "query": QUERY, "documents": DOCUMENTS[-5:]}


async def test_an_llm_reranker_gets_the_instruction(tmp_path: Path) -> None:
    folder = write_llm_reranker(tmp_path, "qwen3-reranker")
    opened = open_llm_reranker(folder, "torch")
    expected = 1 / (1 + 1 / 2.718281828459045 ** opened.scores(DOCUMENTS[-5:], INSTRUCTION))
    model = ModelSettings(name=str(folder), aliases=("judge",), engine="torch", dtype="float32")

    async with running(Settings(models=(model,))) as app, calling(app) as client:
        answers = [
            (await client.post(path, json=BODY | fields)).json()["results"]
            for path in PATHS
            for fields in ({"instruction": INSTRUCTION}, {}, {"instruction": None}, {"instruction": ""})
        ]

    instructed, *plain = answers[:4]
    found = {one["index"]: one["relevance_score"] for one in instructed}
    assert [found[at] for at in range(5)] == pytest.approx(expected.tolist(), abs=1e-4)
    assert all(other == plain[0] != instructed for other in plain)
    assert answers == answers[:4] * len(PATHS)


@pytest.mark.parametrize("path", PATHS)
async def test_a_model_that_takes_no_instruction_refuses_it(path: str, faked: httpx.AsyncClient) -> None:
    body = BODY | {"model": "rerank-v3.5"}

    refused = await faked.post(path, json=body | {"instruction": "Find opposites"})
    allowed = await faked.post(path, json=body | {"instruction": None})

    assert (400, 200) == (refused.status_code, allowed.status_code)
    assert "this model takes no instruction; leave it out" in refused.text
