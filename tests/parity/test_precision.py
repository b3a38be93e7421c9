"""What lower precisions cost: heads stay in float32 on every engine, and the loss that is stated is the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch as pytorch
from checkpoints import write_transformer
from texts import varied_texts
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification

from nearfar.core.errors import SettingsError
from nearfar.engines import mlx, openvino, torch
from nearfar.engines.base import OpenRequest
from nearfar.engines.common.precision import MAX_LOGIT_CHANGE, MIN_COSINE, MIN_QUERY_ORDER, measure_loss
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.core.settings import Dtype

ENGINES: dict[str, Any] = {"mlx": mlx.kind, "openvino": openvino.kind, "torch": torch.kind}
QUERY = "the quick brown fox"


def request_for(folder: Path, dtype: Dtype) -> OpenRequest:
    recipe = read_recipe(folder)
    probes = TextEncoder(folder, recipe).sample_rows()
    return OpenRequest(
        folder=folder,
        recipe=recipe,
        device="cpu",
        dtype=dtype,
        probes=probes,
        cache_dir=folder.parent / "cache",
        threads=1,
    )


@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert", "qwen3"])
def test_logits_in_bfloat16_make_no_more_documents_equal_than_in_float32(
    family: str, engine: str, tmp_path: Path
) -> None:
    if engine == "openvino":
        from nearfar.engines.openvino.compiled_model import supports

        if not supports("bfloat16"):
            pytest.skip("this CPU doesn't support bfloat16")
    folder = write_transformer(tmp_path / "reranker", family, labels=1)
    pairs = TextEncoder(folder, read_recipe(folder)).encode_pairs(QUERY, varied_texts(150), None)

    exact, rounded = (
        ENGINES[engine].open(request_for(folder, dtype)).score(pairs) for dtype in ("float32", "bfloat16")
    )

    assert len({*rounded.tolist()}) >= 0.97 * len({*exact.tolist()})
    np.testing.assert_allclose(exact, rounded, atol=0.1 * float(np.ptp(exact)) + 0.01)


def reranker_of_real_weights(folder: Path) -> Path:
    """Write the built-in model's transformer with a seeded classifier, whose logits are spread as real rerankers'."""
    source = find_builtin().folder
    config = BertConfig.from_pretrained(source, num_labels=1)
    model = BertForSequenceClassification(config).eval()
    model.bert.load_state_dict(AutoModel.from_pretrained(source).state_dict())
    weights = pytorch.randn(1, config.hidden_size, generator=pytorch.Generator().manual_seed(5))
    model.classifier.weight.data, model.classifier.bias.data = weights * 2, pytorch.full((1,), 5.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def test_a_reranker_is_judged_by_its_logits_where_all_scores_are_close_to_one(tmp_path: Path) -> None:
    from nearfar.engines.openvino.compiled_model import supports

    folder = reranker_of_real_weights(tmp_path / "reranker")
    rows = TextEncoder(folder, read_recipe(folder)).encode_pairs(QUERY, varied_texts(30), None)
    exact = openvino.kind.open(request_for(folder, "float32")).score(rows)

    engine = openvino.kind.open(request_for(folder, "auto"))

    assert np.abs(engine.score(rows) - exact).max() <= MAX_LOGIT_CHANGE
    assert not supports("bfloat16") or "bfloat16 would lose too much: logits within" in engine.info.dtype_reason
    with pytest.raises(SettingsError, match=r"int8 would change this reranker's order too much: logits within \d"):
        openvino.kind.open(request_for(folder, "int8"))


@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_a_reranker_is_refused_in_int8_if_documents_change_places(family: str, tmp_path: Path) -> None:
    folder = write_transformer(
        tmp_path / "reranker",
        family,
        labels=1,
        hidden_size=128,
        num_hidden_layers=4,
        intermediate_size=256,
        initializer_range=0.1,
    )

    with pytest.raises(SettingsError, match=r"0\.0\d+ of float32, 9\d\.\d+% of pairs and 9[4-7]\.\d+% of those of one"):
        openvino.kind.open(request_for(folder, "int8"))


def test_samples_of_a_reranker_have_the_number_of_their_query(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "reranker", "bert", labels=1)

    rows = TextEncoder(folder, read_recipe(folder)).sample_rows()

    ends = {row.ids.index(3): row.query for row in rows}  # the first separator's place, which few queries share
    assert {0, 1, 2, 3} == {row.query for row in rows}
    assert {0, 1, 2, 3} == {*ends.values()}


@pytest.mark.parametrize(
    ("between_queries", "within_a_query", "change", "order"),
    [
        (0.0, 1.0, 0.0, 1.0),
        (0.0, 1.0, 0.01, 0.996),
        (0.0, 1.0, 0.1, 0.968),
        (9.0, 0.1, 0.01, 0.968),  # of the pairs across queries, 99.2 % keep their order
        (9.0, 1.0, 0.1, 0.968),
        (0.0, 1.0, 9.0, 0.53),
    ],
)
def test_the_order_of_logits_is_that_of_one_query_s_documents(
    between_queries: float, within_a_query: float, change: float, order: float
) -> None:
    numbers = np.random.default_rng(3)
    queries = np.repeat(np.arange(4), 14)
    exact = between_queries * queries + within_a_query * numbers.standard_normal(56)
    found = exact + change * numbers.standard_normal(56)
    probes = [Row([], None, 0, 0, query=query) for query in queries.tolist()]

    loss = measure_loss(exact.astype(np.float32), found.astype(np.float32), (), probes)

    assert pytest.approx(order, abs=0.04 * (1 - order) + 0.008) == loss.query_order
    assert (loss.query_order >= MIN_QUERY_ORDER) is (order >= MIN_QUERY_ORDER)


def test_a_loss_is_small_only_if_the_worst_vector_the_logits_and_the_order_are_kept() -> None:
    vectors = np.random.default_rng(1).standard_normal((30, 16)).astype(np.float32)
    short = vectors.copy()
    short[7] += 0.2 * np.roll(vectors[7], 1)
    logits = np.linspace(8, 9, 30, dtype=np.float32)

    assert measure_loss(vectors, np.multiply(vectors, 2, dtype=np.float32)).is_small
    assert not measure_loss(vectors, short).is_small
    assert measure_loss(vectors, short).worst < MIN_COSINE < measure_loss(vectors, short).mean + 0.01
    assert measure_loss(logits, logits + np.float32(0.001), ()).is_small
    assert not measure_loss(logits, logits + np.float32(0.01), ()).is_small
    assert not measure_loss(logits / np.float32(1000), (logits / 1000).round(4).astype(np.float32), ()).is_small  # ties
    assert not measure_loss(logits, np.full_like(logits, np.nan), ()).is_small
    assert 1.0 == measure_loss(np.zeros_like(vectors), np.zeros_like(vectors)).worst
