"""A head's weights that a class doesn't use are refused: without them the model isn't the one that was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from checkpoints import write_files, write_transformer
from llm_reranker_models import write_llm_reranker
from safetensors.torch import load_file, save_file

from nearfar.core.errors import CheckpointError, EngineUnavailable, SetupError
from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.engines.base import Engine

ENGINES = ["torch", "openvino", "mlx"]


def opened(folder: Path, engine: str) -> Engine:
    request = OpenRequest(folder=folder, recipe=read_recipe(folder), device="cpu", dtype="float32", threads=1)
    return installed_engines()[engine].open(request)


def add_weights(folder: Path, **weights: torch.Tensor) -> None:
    file = folder / "model.safetensors"
    named = {name.replace("__", "."): tensor for name, tensor in weights.items()}
    save_file(load_file(file) | named, file, {"format": "pt"})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bias_that_the_classifier_does_not_add_is_refused(engine: str, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", "qwen2", labels=1)
    add_weights(folder, score__bias=torch.ones(1))
    with pytest.raises(SetupError, match=r"score\.bias"):
        opened(folder, engine)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *(("bert", "score"), ("qwen2", "score"), ("bert", "pre_classifier"), ("bert", "qa_outputs")),
        *(("bert", "aggregation_classifier"), ("bert", "out_proj"), ("bert", "sequence_summary__summary")),
    ],
)
def test_a_classifier_beside_a_bare_transformer_is_refused(family: str, name: str, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", family)
    add_weights(folder, **{f"{name}__weight": torch.ones(1, 32)})
    with pytest.raises(CheckpointError, match=rf"{name.replace('__', '.')}\.weight"):
        opened(folder, "torch")


def test_modules_json_replaces_a_head(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", "bert")
    add_weights(folder, classifier__weight=torch.ones(2, 32))
    steps = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(steps)
    ]
    pooling = {"word_embedding_dimension": 32, "pooling_mode": "mean"}
    write_files(folder, {"modules.json": modules, "1_Pooling/config.json": pooling})
    assert 32 == opened(folder, "torch").info.dim


def test_mlx_refuses_output_embeddings_that_are_not_the_tied_ones(tmp_path: Path) -> None:
    folder = write_llm_reranker(tmp_path, "qwen3-reranker")
    assert opened(folder, "mlx").info.labels == 1
    embeddings = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    add_weights(folder, lm_head__weight=embeddings.clone())
    assert opened(folder, "mlx").info.labels == 1
    add_weights(folder, lm_head__weight=embeddings + 1)
    with pytest.raises(EngineUnavailable, match=r"lm_head\.weight differ"):
        opened(folder, "mlx")
