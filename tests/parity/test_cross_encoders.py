"""Cross-encoders score and rank as sentence-transformers runs them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from checkpoints import write_files, write_transformer
from conftest import calling, running
from sentence_transformers import CrossEncoder

from nearfar import ModelSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

QUERY = "the quick brown fox"
DOCUMENTS = ["jumps over the lazy dog", "a question? an answer!", "numbers 0 1 2", "jumps over the lazy dog"]


@pytest.fixture
def reranker(tmp_path: Path) -> Path:
    folder = write_transformer(tmp_path / "reranker", "bert", labels=1)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    # As in BERT's own tokenizer files; transformers' generic tokenizer leaves the types out otherwise.
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return write_files(folder, {"tokenizer_config.json": {**tokenizer, "model_input_names": names}})


async def test_a_cross_encoder_scores_as_sentence_transformers_does(reranker: Path) -> None:
    expected = CrossEncoder(str(reranker), device="cpu", local_files_only=True).predict(
        [(QUERY, document) for document in DOCUMENTS], show_progress_bar=False
    )

    settings = Settings(models=(ModelSettings(name=str(reranker), engine="torch"),), device="cpu")
    async with running(settings) as app, calling(app) as client:
        answer = await client.post("/v2/rerank", json={"model": "reranker", "query": QUERY, "documents": DOCUMENTS})

    found = {result["index"]: result["relevance_score"] for result in answer.json()["results"]}
    np.testing.assert_allclose(expected, [found[index] for index in range(4)], atol=1e-5)
    assert sorted(range(4), key=lambda index: (-expected[index], index)) == list(found)
