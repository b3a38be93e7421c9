"""Version 1 of Cohere's rerank scores long documents by their best chunk; version 2 truncates them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.anyio

BODY = {"model": "rerank-v3.5", "query": "a pet that meows"}
END = "A cat is a pet that meows."
LATE = "truck " * 600 + END  # of 256 tokens in all, a chunk has room for 254


async def _score(client: httpx.AsyncClient, path: str, **more: object) -> tuple[float, str]:
    answer = await client.post(path, json={**BODY, "documents": [LATE], **more})
    return answer.json()["results"][0]["relevance_score"], answer.headers["x-nearfar-truncated-tokens"]


async def test_version_1_finds_what_is_at_the_end_of_a_document(builtin: httpx.AsyncClient) -> None:
    early, _ = await _score(builtin, "/v1/rerank", max_chunks_per_doc=2)
    late, cut = await _score(builtin, "/v1/rerank", max_chunks_per_doc=3)
    default, _ = await _score(builtin, "/v1/rerank")

    assert "0" == cut
    assert late == default
    assert late > early + 0.05


async def test_version_2_truncates_to_the_limit_of_the_model(builtin: httpx.AsyncClient) -> None:
    first_chunk, _ = await _score(builtin, "/v1/rerank", max_chunks_per_doc=1)
    score, cut = await _score(builtin, "/v2/rerank")

    assert first_chunk == pytest.approx(score, abs=1e-6)
    assert int(cut) > 346  # of the trucks, and the end
