"""The manual's table of what runs where is true: every cell is tried against transformers, and no other is claimed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from checkpoints import FAMILIES, MORE_FAMILIES, write_transformer
from conftest import ENGINES
from llm_reranker_models import RERANKERS, write_llm_reranker
from manual import tables
from small_models import write_colbert, write_m3, write_splade
from transformers import AutoModel, AutoModelForSequenceClassification

from nearfar.core.errors import EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.models.recipe.recipe import Recipe
    from nearfar.models.tokenization.row import Row

ALL = sorted(FAMILIES | MORE_FAMILIES)
TEXTS = ["the fox", "a question? an answer!", "x", "embeddings place a text among its neighbours", "word " * 60]


def by_transformers(folder: Path, recipe: Recipe, rows: list[Row]) -> np.ndarray[Any, Any]:
    """Run each row by itself."""
    auto = AutoModel if recipe.task == "embed" else AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for row in rows:
        types = {} if row.type_ids is None else {"token_type_ids": torch.tensor([row.type_ids])}
        with torch.no_grad():
            output = model(input_ids=torch.tensor([row.ids]), **types)
        if recipe.task == "score":
            found.append(output.logits[0])
        else:
            hidden = output.last_hidden_state[0]
            found.append(hidden[-1] if recipe.pooling == ("lasttoken",) else hidden.mean(0))
    return torch.stack(found).numpy()


def works(folder: Path, engine: str) -> bool:
    """Return whether the engine computes transformers' numbers, False if it refuses. Anything else fails the test."""
    recipe = read_recipe(folder)
    tokens = TextEncoder(folder, recipe)
    request = OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype="float32", probes=tokens.sample_rows())
    try:
        opened = installed_engines()[engine].open(request)
    except EngineUnavailable:
        return False
    if recipe.task == "score":
        rows = tokens.encode_pairs("a question?", TEXTS, None)
        np.testing.assert_allclose(opened.score(rows)[:, None], by_transformers(folder, recipe, rows), atol=1e-4)
    else:
        rows = tokens.encode(TEXTS)
        expected = by_transformers(folder, recipe, rows)
        cosines = (opened.embed(rows) * expected).sum(1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() >= 0.9999
    return True


def stated() -> dict[str, list[str]]:
    """Read the table: family → what each engine does with it."""
    rows = tables("models", "| `model_type` | `torch` | `openvino` | `mlx` |")
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_table_has_every_family_that_is_tried() -> None:
    assert ALL == list(stated())


@pytest.mark.parametrize("family", ALL)
def test_what_the_table_says_is_so(family: str, tmp_path: Path) -> None:
    folders = {"embeds": write_transformer(tmp_path / "embedder", family)}
    with suppress(ValueError):  # transformers has no classifier of the family
        folders["reranks"] = write_transformer(tmp_path / "reranker", family, labels=1)

    for engine, claimed in zip(("torch", "openvino", "mlx"), stated()[family], strict=True):
        if engine in ENGINES:
            found = ", ".join(what for what, folder in folders.items() if works(folder, engine)) or "–"
            assert found == claimed, f"{family} on {engine}"


ENCODERS = ["bert", "distilbert", "modernbert", "xlm-roberta"]
# What each kind in the second table is tried with, and what writes it, into the folder given or one that it returns.
# The numbers are held against those of their authors by the other tests of engines.
KINDS: dict[str, tuple[list[str], Callable[[Path, str], object]]] = {
    "ColBERT": (ENCODERS, write_colbert),
    "SPLADE": (ENCODERS, write_splade),
    "BGE-M3": (["xlm-roberta"], lambda folder, _: write_m3(folder)),
    "classifier": (sorted([*ENCODERS, "qwen3"]), lambda folder, family: write_transformer(folder, family, labels=3)),
    "Qwen3-Reranker": (["qwen3"], lambda folder, _: write_llm_reranker(folder, "qwen3-reranker")),
    "mxbai-rerank-v2": (["qwen2"], lambda folder, _: write_llm_reranker(folder, "mxbai-rerank-v2")),
    "bge-reranker-v2-gemma": (["gemma"], lambda folder, _: write_llm_reranker(folder, "bge-reranker-v2-gemma")),
}


def runs(folder: Path, engine: str) -> bool:
    """Return whether the engine opens the folder and answers."""
    recipe = read_recipe(folder)
    tokens = TextEncoder(folder, recipe)
    probes = tokens.sample_rows()
    request = OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype="float32", probes=probes)
    try:
        opened = installed_engines()[engine].open(request)
    except EngineUnavailable:
        return False
    return len(probes) == len(opened.represent(probes) if recipe.outputs else opened.score(probes))


def kinds_stated() -> dict[str, list[str]]:
    rows = tables("models", "| kind of model | `torch` | `openvino` | `mlx` |")
    return {row[0].partition(",")[0]: row[1:] for row in rows}


def test_the_second_table_has_every_kind_that_is_tried() -> None:
    assert list(KINDS) == list(kinds_stated())
    assert len(RERANKERS) == len([kind for kind in KINDS if "rerank" in kind.lower()])


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_second_table_says_is_so(kind: str, tmp_path: Path) -> None:
    families, write = KINDS[kind]
    folders = {family: tmp_path / family / "model" for family in families}
    for family, folder in folders.items():
        made = write(folder, family)
        folders[family] = made if isinstance(made, Path) else folder

    for engine, claimed in zip(("torch", "openvino", "mlx"), kinds_stated()[kind], strict=True):
        if engine in ENGINES:
            found = [f"`{family}`" for family, folder in folders.items() if runs(folder, engine)]
            assert ", ".join(found) == claimed, engine
