"""A text's numbers are those that transformers computes for it alone, whatever other texts are in its batch."""

from __future__ import annotations

import logging
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from checkpoints import POSITIONS, write_files, write_transformer
from transformers import AutoModel, AutoModelForSequenceClassification

from nearfar.core.errors import EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.engines.common.batch_invariance import SplitBatchEngine, ensure_batch_invariance
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nearfar.core.types import FloatArray
    from nearfar.engines.base import Engine

TEXTS = ["fox", "the quick brown fox jumps over the lazy dog while the slow turtle sleeps", "a dog", "numbers 0 1 2"]
_SHORT = POSITIONS // 4
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [5.0] * 4,
    "original_max_position_embeddings": _SHORT,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": _SHORT}
# A family, what its config.json has, and which texts may run together.
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "bert": ("bert", {}, "mixed lengths"),
    "convbert": ("convbert", {}, "equal lengths"),
    "lfm2": ("lfm2", {}, "mixed lengths"),
    "lfm2 of convolutions": ("lfm2", {"layer_types": ["conv", "conv"]}, "mixed lengths"),
    "gemma, bidirectional": ("gemma", {"use_bidirectional_attention": True}, "equal lengths"),
    "llama, longrope": ("llama", {"rope_parameters": LONGROPE}, "equal lengths"),
    "llama, dynamic": ("llama", {"rope_parameters": DYNAMIC}, "equal lengths"),
}


def order_of(folder: Path) -> OpenRequest:
    recipe = read_recipe(folder)
    probes = TextEncoder(folder, recipe).sample_rows()
    return OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype="float32", probes=probes)


def mean_pooled(folder: Path) -> Path:
    """Make an embedding model of the transformer in the folder."""
    steps = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(steps)
    ]
    pooling = {"word_embedding_dimension": 32, "pooling_mode": "mean"}
    return write_files(
        folder,
        {
            "modules.json": modules,
            "1_Pooling/config.json": pooling,
            "sentence_bert_config.json": {"max_seq_length": POSITIONS},
        },
    )


def relative(found: FloatArray, expected: Sequence[FloatArray]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float(np.linalg.norm(one - other)) / max(float(np.linalg.norm(other)), 1.0) for one, other in pairs)


@pytest.mark.parametrize("case", CASES)
def test_a_vector_is_that_of_the_text_alone(case: str, tmp_path: Path) -> None:
    family, options, batching = CASES[case]
    folder = mean_pooled(write_transformer(tmp_path / "model", family, **options))
    request = order_of(folder)
    rows = TextEncoder(folder, request.recipe).encode(TEXTS)
    expected = []
    for row in rows:
        alone = AutoModel.from_pretrained(folder).eval()  # opened for each, because a text may change it
        alone.config.use_cache = False
        with torch.no_grad():
            ids = torch.tensor([row.ids])
            expected.append(alone(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].mean(0).numpy())

    engine = ensure_batch_invariance(installed_engines()["torch"].open(request), request, "embed")

    assert relative(engine.embed(rows), expected) < 1e-5
    assert relative(engine.embed(rows[::-1])[::-1], expected) < 1e-5
    assert relative(np.stack([engine.embed([row])[0] for row in rows]), expected) < 1e-5
    assert batching == (engine.info.batching or "mixed lengths")
    if batching == "equal lengths":
        assert 0 == engine.info.max_padding


def test_an_xlnet_reranker_scores_each_pair_as_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_transformer(tmp_path / "model", "xlnet", labels=1)
    request = order_of(folder)
    rows = TextEncoder(folder, request.recipe).encode_pairs("a question? the fox", TEXTS, None)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        alone = [
            model(torch.tensor([row.ids]), token_type_ids=torch.tensor([row.type_ids or [0] * len(row.ids)])).logits[0]
            for row in rows
        ]

    with caplog.at_level(logging.WARNING):
        engine = ensure_batch_invariance(installed_engines()["torch"].open(request), request, "score")

    assert relative(engine.score(rows)[:, None], [logits.numpy() for logits in alone]) < 1e-5
    assert "batches are of equal lengths" in caplog.text


def test_openvino_refuses_positions_that_depend_on_the_longest_text(tmp_path: Path) -> None:
    folder = mean_pooled(write_transformer(tmp_path / "model", "llama", rope_parameters=DYNAMIC))
    with pytest.raises(EngineUnavailable, match="use --engine torch"):
        installed_engines()["openvino"].open(order_of(folder))


class Summing:
    """Adds to each row's numbers what ``leak`` computes of the whole batch."""

    def __init__(self, engine: Engine, leak: Any) -> None:
        self.info = engine.info
        self._leak = leak

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        return np.array([[sum(row.ids) + self._leak(batch), 1.0] for row in batch], dtype=np.float32)


def test_rows_run_alone_where_equal_lengths_differ_too(tmp_path: Path) -> None:
    request = order_of(write_transformer(tmp_path / "model", "bert"))
    plain = installed_engines()["torch"].open(request)
    summing: Any = Summing(plain, len)

    engine = ensure_batch_invariance(summing, request, "embed")

    assert isinstance(engine, SplitBatchEngine)
    assert "one text" == engine.info.batching
    rows = [Row([1, 2], None, 2, 0), Row([3, 4], None, 2, 0)]
    assert [[4.0, 1.0], [8.0, 1.0]] == engine.embed(rows).tolist()


def test_a_model_that_gives_a_text_other_numbers_each_time_is_refused(tmp_path: Path) -> None:
    request = order_of(write_transformer(tmp_path / "model", "bert"))
    plain = installed_engines()["torch"].open(request)
    calls = count()
    summing: Any = Summing(plain, lambda _: next(calls))
    with pytest.raises(EngineUnavailable, match="other numbers for the same text"):
        ensure_batch_invariance(summing, request, "embed")
