"""A model without special tokens has none at all for some texts: the others of a request are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from checkpoints import write_transformer
from conftest import calling, running

from nearfar import ModelSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_a_text_without_tokens_gets_zeros_and_a_document_is_named_by_its_own_index(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "gpt2", "gpt2")
    models = (ModelSettings(name=str(folder), aliases=("m",), engine="torch"),)

    async with running(Settings(models=models, device="cpu", dtype="float32")) as app, calling(app) as client:
        mixed = await client.post("/api/embed", json={"model": "m", "input": ["", "the fox", ""]})
        alone = await client.post("/api/embed", json={"model": "m", "input": "the fox"})
        short = await client.post("/api/embed", json={"model": "m", "input": ["the fox", ""], "dimensions": 4})
        nothing = await client.post("/embed", json={"inputs": ["", ""]})
        ranked = await client.post("/rerank", json={"query": "fox", "documents": ["the fox", ""]})
        queried = await client.post("/score", json={"text_1": "", "text_2": "the fox"})

    first, second, third = mixed.json()["embeddings"]
    assert [0.0] * 32 == first == third
    assert alone.json()["embeddings"][0] == pytest.approx(second, abs=1e-6)
    assert [0.0] * 4 == short.json()["embeddings"][1]
    assert (400, 400, 400) == (nothing.status_code, ranked.status_code, queried.status_code)
    assert "text 0 has no token" in nothing.text
    assert "document 1 has no token" in ranked.text
    assert "no token" in queried.text
