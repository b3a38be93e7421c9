"""How much memory a checkpoint's weights take. Reads the headers of safetensors files, never the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import Struct

from nearfar.models.files.safetensors_headers import tensor_shapes, weight_files

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.models.recipe.recipe import Recipe

_BYTES_EACH = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


class WeightSizes(Struct, frozen=True, kw_only=True):
    """How many numbers there are, and the bytes of the files they are in."""

    parameters: int
    file_bytes: int
    quantized: bool = False

    def bytes_in_memory(self, dtype: str) -> int:
        """Give the bytes they take in this precision, or at most, where it isn't known yet.

        Quantised weights stay as they are. What an engine keeps beside the weights isn't counted.
        """
        return self.file_bytes if self.quantized else self.parameters * _BYTES_EACH.get(dtype, 4)


def read_weight_sizes(folder: Path, recipe: Recipe) -> WeightSizes:
    """Count what the engines read of the folder. Raises CheckpointError for a file that isn't safetensors."""
    files = {*weight_files(folder), *(dense.file for dense in recipe.linear_layers)}
    return WeightSizes(
        parameters=sum(
            math.prod(shape)
            for file in files
            for name, shape in tensor_shapes(file).items()
            if not name.endswith("position_ids")  # old files carry this count from 0, which engines make themselves
        ),
        file_bytes=sum(file.stat().st_size for file in files),
        quantized=recipe.quantized,
    )
