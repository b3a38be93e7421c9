"""How much memory a model takes is known before it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from checkpoints import lay, write_steps, write_transformer
from transformers import AutoModel

from nearfar.core.errors import CheckpointError
from nearfar.models.files.safetensors import read_weight_sizes
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from pathlib import Path


def numbers_in(folder: Path) -> int:
    return sum(parameter.numel() for parameter in AutoModel.from_pretrained(folder).parameters())


def test_every_number_counts_with_the_bytes_of_its_precision(bert: Path) -> None:
    numbers = numbers_in(bert)

    weights = read_weight_sizes(bert, read_recipe(bert))

    sizes = {dtype: weights.bytes_in_memory(dtype) for dtype in ("float32", "float16", "bfloat16", "int8")}
    assert {"float32": 4 * numbers, "float16": 2 * numbers, "bfloat16": 2 * numbers, "int8": numbers} == sizes


def test_a_precision_that_is_not_known_yet_counts_as_the_largest(bert: Path) -> None:
    weights = read_weight_sizes(bert, read_recipe(bert))

    assert weights.bytes_in_memory("float32") == weights.bytes_in_memory("auto")


def test_layers_after_pooling_count_too(bert: Path) -> None:
    numbers = numbers_in(bert)
    write_steps(bert, "mean")

    weights = read_weight_sizes(bert, read_recipe(bert))

    assert numbers + 12 * 32 + 12 == weights.parameters


def test_weights_in_several_files_are_counted_once_each(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "bert", "bert")
    numbers = numbers_in(folder)
    (folder / "model.safetensors").unlink()
    AutoModel.from_config(
        AutoModel.from_pretrained(write_transformer(tmp_path / "same", "bert")).config
    ).save_pretrained(folder, max_shard_size="50KB")

    weights = read_weight_sizes(folder, read_recipe(folder))

    assert len(list(folder.glob("*.safetensors"))) > 1
    assert numbers == weights.parameters


def test_quantised_weights_take_what_their_file_takes(bert: Path) -> None:
    recipe = msgspec.structs.replace(read_recipe(bert), quantized=True)

    weights = read_weight_sizes(bert, recipe)

    size = (bert / "model.safetensors").stat().st_size
    assert {size} == {weights.bytes_in_memory(dtype) for dtype in ("float32", "auto", "4 bits")}


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 8 + b"{}", (5).to_bytes(8, "little") + b"nonsense"])
def test_a_file_that_is_not_safetensors_is_refused_by_name(content: bytes, bert: Path) -> None:
    lay(bert, {"model.safetensors": content})

    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*; download it again$"):
        read_weight_sizes(bert, read_recipe(bert))
