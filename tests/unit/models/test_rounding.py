"""The precision that transformers rounds weights to at loading is read from the same places, in its order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from checkpoints import write_files
from safetensors.numpy import save_file

from nearfar.core.errors import CheckpointError
from nearfar.models.files.safetensors import read_weight_sizes
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nearfar.models.recipe.recipe import Recipe

BERT: dict[str, object] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 8,
    "max_position_embeddings": 64,
}
FLOAT32: dict[str, object] = {"a": np.float32, "b": np.float16}
MODULES = [
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
# config.json's keys, sentence_bert_config.json's, the weights' types → what is rounded to.
TABLE: list[tuple[dict[str, object], dict[str, object], dict[str, object], str | None]] = [
    ({}, {}, FLOAT32, None),
    ({"dtype": "float32"}, {}, FLOAT32, None),
    ({"dtype": "float64"}, {}, FLOAT32, None),
    ({"dtype": "bfloat16"}, {}, FLOAT32, "bfloat16"),
    ({"torch_dtype": "float16"}, {}, FLOAT32, "float16"),
    ({"dtype": "half"}, {}, FLOAT32, "float16"),
    ({"dtype": None, "torch_dtype": "bfloat16"}, {}, FLOAT32, "bfloat16"),
    ({"dtype": "float32", "torch_dtype": "bfloat16"}, {}, FLOAT32, None),
    ({}, {}, {"a": np.int64, "b": np.float16, "c": np.float32}, "float16"),
    ({}, {}, {"a": np.int64}, None),
    ({"dtype": "bfloat16"}, {"model_args": {"torch_dtype": "float32"}}, FLOAT32, None),
    ({"dtype": "bfloat16"}, {"model_kwargs": {"dtype": "auto"}}, FLOAT32, "bfloat16"),
    ({}, {"model_kwargs": {"dtype": "float16"}}, FLOAT32, "float16"),
    ({}, {"config_kwargs": {"dtype": "bfloat16"}}, FLOAT32, "bfloat16"),
    ({"dtype": "bfloat16", "quantization_config": {"quant_method": "gptq"}}, {}, FLOAT32, None),
    ({"dtype": "bfloat16", "quantization": {"bits": 4}}, {}, FLOAT32, None),
]


def read(folder: Path, config: dict[str, object], sentence: dict[str, object], types: Mapping[str, object]) -> Recipe:
    """Write a folder with weights of these types, and read it."""
    files: dict[str, object] = {"config.json": BERT | config, "modules.json": MODULES, "1_Pooling/config.json": {}}
    write_files(folder, files | ({"sentence_bert_config.json": sentence} if sentence else {}))
    weights = {f"{name}.weight": np.ones(2, np.dtype(kind)) for name, kind in types.items()}  # type: ignore[call-overload]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return read_recipe(folder)


def test_weights_are_rounded_as_transformers_rounds_them(tmp_path: Path) -> None:
    expected = [rounding for *_, rounding in TABLE]

    found = [read(tmp_path / str(at), *row[:3]).rounds_to for at, row in enumerate(TABLE)]

    assert expected == found


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"dtype": "float99"}, "the weights' dtype 'float99' isn't one of float32, "),
        ({"torch_dtype": "torch.bfloat16"}, "the weights' dtype 'torch.bfloat16' isn't one of"),
        ({"dtype": "auto"}, "the weights' dtype 'auto' isn't one of"),
        ({"dtype": {"": "bfloat16"}}, "the weights' dtype \"{'': 'bfloat16'}\" isn't one of"),
        ({"pad_token_id": [1]}, r"Expected `int | null`, got `array` - at `$.pad_token_id`; correct the file"),
        ({"max_position_embeddings": None}, "got `null` - at `$.max_position_embeddings`; correct the file"),
    ],
)
def test_what_transformers_cannot_read_is_refused(config: dict[str, object], why: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(why)):
        read(tmp_path, config, {}, FLOAT32)


def test_an_index_may_state_the_precision(tmp_path: Path) -> None:
    read(tmp_path, {}, {}, FLOAT32)
    (tmp_path / "model.safetensors").rename(tmp_path / "part.safetensors")
    index = {"metadata": {"dtype": "bfloat16"}, "weight_map": {"a.weight": "part.safetensors"}}

    write_files(tmp_path, {"model.safetensors.index.json": index})

    assert read_recipe(tmp_path).rounds_to == "bfloat16"


def test_weights_of_64_bits_are_not_quantized_ones(tmp_path: Path) -> None:
    recipe = read(tmp_path, {}, {}, {"a": np.float64})

    assert read_weight_sizes(tmp_path, recipe).parameters == 2
