"""A text's last hidden states are those of transformers on every engine."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from checkpoints import HIDDEN, write_transformer
from conftest import ENGINES
from small_models import write_colbert, write_m3
from texts import varied_texts
from transformers import AutoModel

from nearfar.core.errors import CheckpointError
from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nearfar.core.settings import Dtype
    from nearfar.core.types import FloatArray
    from nearfar.engines.base import Engine
    from nearfar.models.tokenization.row import Row

HEAD = "the quick brown fox jumps over the lazy dog"
TEXTS = [*varied_texts(30), "x", f"{HEAD} while", f"{HEAD} ? !", f"{HEAD} x", "the fox"]


def open_folder(
    folder: Path, engine: str, dtype: Dtype = "float32", cache: Path | None = None
) -> tuple[Engine, TextEncoder]:
    recipe = read_recipe(folder)
    tokens = TextEncoder(folder, recipe)
    request = OpenRequest(
        folder=folder, recipe=recipe, device="cpu", dtype=dtype, probes=tokens.sample_rows(), cache_dir=cache, threads=2
    )
    return installed_engines()[engine].open(request), tokens


def by_transformers(folder: Path, rows: Sequence[Row]) -> list[FloatArray]:
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return [model(torch.tensor([row.ids])).last_hidden_state[0].numpy() for row in rows]


def assert_same(expected: Sequence[FloatArray], found: Sequence[FloatArray], atol: float = 1e-4) -> None:
    assert [one.shape for one in expected] == [one.shape for one in found]
    for one, other in zip(expected, found, strict=True):
        assert np.float32 == other.dtype
        np.testing.assert_allclose(other, one, rtol=0, atol=atol)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert", "llama", "qwen3"])
def test_hidden_states_are_those_of_transformers(family: str, engine: str, tmp_path: Path) -> None:
    """Whatever the lengths beside it, and whatever rows begin with alike."""
    folder = write_transformer(tmp_path, family)
    here, tokens = open_folder(folder, engine)
    rows = [row for row in tokens.encode(TEXTS) if row.ids]

    found = here.hidden_states(rows)

    assert_same(by_transformers(folder, rows), found)
    assert_same(found[:1], here.hidden_states(rows[:1]))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_of_several_outputs_has_them_as_well(engine: str, tmp_path: Path) -> None:
    folder = write_m3(tmp_path / "bge-m3")
    here, tokens = open_folder(folder, engine)
    rows = tokens.encode(TEXTS)

    found = here.hidden_states(rows)

    assert_same(by_transformers(folder, rows), found)
    np.testing.assert_allclose(here.embed(rows[:1])[0], found[0][0] / np.linalg.norm(found[0][0]), atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_they_are_what_the_built_in_model_pools(engine: str, tmp_path: Path) -> None:
    here, tokens = open_folder(find_builtin().folder, engine, cache=tmp_path)
    rows = tokens.encode(["a cat on the sofa", "stock prices fell", "x"])

    found = here.hidden_states(rows)

    pooled = np.stack([states.mean(0) for states in found])
    np.testing.assert_allclose(here.embed(rows), pooled / np.linalg.norm(pooled, axis=1)[:, None], atol=1e-5)
    assert_same(by_transformers(find_builtin().folder, rows), found)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_lower_precision_has_float32_states_that_are_near(dtype: Dtype, tmp_path: Path) -> None:
    engine = "torch" if dtype == "bfloat16" else "openvino"
    if engine not in ENGINES:
        pytest.skip("not installed")
    here, tokens = open_folder(find_builtin().folder, engine, dtype, tmp_path)
    rows = tokens.encode(["a cat on the sofa", "stock prices fell", "x"])

    found = here.hidden_states(rows)

    for one, other in zip(by_transformers(find_builtin().folder, rows), found, strict=True):
        assert np.float32 == other.dtype
        assert (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other) > 0.99
    pooled = np.stack([states.mean(0) for states in found])
    np.testing.assert_allclose(here.embed(rows), pooled / np.linalg.norm(pooled, axis=1)[:, None], atol=2e-2)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_that_pools_nothing_has_none(engine: str, tmp_path: Path) -> None:
    write_colbert(tmp_path / "colbert", "bert")
    here, tokens = open_folder(tmp_path / "colbert", engine)

    with pytest.raises(TypeError, match="doesn't pool"):
        here.hidden_states(tokens.encode(["x"]))


@pytest.mark.skipif("openvino" not in ENGINES, reason="not installed")
class TestOpenVino:
    def test_they_are_there_without_a_cache_and_after_it_is_lost(self, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path / "bert", "bert")
        kept, tokens = open_folder(folder, "openvino", cache=tmp_path / "cache")
        again, _ = open_folder(folder, "openvino", cache=tmp_path / "cache")
        rows = tokens.encode(TEXTS)
        expected = by_transformers(folder, rows)

        from_file = again.hidden_states(rows)
        shutil.rmtree(tmp_path / "cache")
        anew = kept.hidden_states(rows)

        assert_same(expected, from_file)
        assert_same(expected, anew)

    def test_the_model_for_vectors_has_no_other_output(self, tmp_path: Path) -> None:
        """Hidden states then cost nothing when no request needs them."""
        import openvino

        folder = write_transformer(tmp_path / "bert", "bert")
        open_folder(folder, "openvino", cache=tmp_path / "cache")
        [file] = (tmp_path / "cache").rglob("model.xml")

        model = openvino.Core().read_model(file)

        assert [HIDDEN] == [output.get_partial_shape()[-1].get_length() for output in model.outputs]
        assert 2 == model.outputs[0].get_partial_shape().rank.get_length()

    def test_several_threads_may_want_them_first(self, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path / "bert", "bert")
        here, tokens = open_folder(folder, "openvino", cache=tmp_path / "cache")
        rows = tokens.encode(TEXTS)

        with ThreadPoolExecutor(here.info.max_concurrent_batches) as threads:
            several = list(threads.map(here.hidden_states, [rows] * 6))

        for found in several:
            assert_same(by_transformers(folder, rows), found)

    def test_a_compilation_that_failed_is_tried_again(self, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path / "bert", "bert")
        here, tokens = open_folder(folder, "openvino")
        rows = tokens.encode(TEXTS)
        weights = folder / "model.safetensors"

        weights.rename(tmp_path / "elsewhere")
        with pytest.raises(CheckpointError):
            here.hidden_states(rows)
        (tmp_path / "elsewhere").rename(weights)

        assert_same(by_transformers(folder, rows), here.hidden_states(rows))
