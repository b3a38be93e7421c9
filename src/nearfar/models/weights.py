"""How much memory a checkpoint's weights take. Reads the headers of safetensors files, never the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from nearfar.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.models.recipe import Recipe

_BYTES_EACH = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit


class Weights(Struct, frozen=True, kw_only=True):
    """How many numbers there are, and the bytes of the files they are in."""

    numbers: int
    file_bytes: int
    quantized: bool = False

    def in_memory(self, dtype: str) -> int:
        """Give the bytes they take in this precision, or at most, where it isn't known yet.

        Quantised weights stay as they are. What an engine keeps beside the weights isn't counted.
        """
        return self.file_bytes if self.quantized else self.numbers * _BYTES_EACH.get(dtype, 4)


class _Array(Struct):
    shape: list[int]


def count_weights(folder: Path, recipe: Recipe) -> Weights:
    """Count what the engines read of the folder. Raises CheckpointError for a file that isn't safetensors."""
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    files += [dense.folder / whole.name for dense in recipe.dense]
    return Weights(
        numbers=sum(map(_count, files)),
        file_bytes=sum(file.stat().st_size for file in files),
        quantized=recipe.quantized,
    )


def _count(file: Path) -> int:
    """Count the numbers of one file: eight bytes say how long its header is, which is JSON and has every shape."""
    damaged = f"{file}: is damaged, or not what safetensors writes"
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = opened.read(min(length, _LONGEST_HEADER))
        arrays = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        arrays.pop("__metadata__", None)
        shapes = [msgspec.json.decode(raw, type=_Array).shape for raw in arrays.values()]
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(damaged) from error
    if len(header) != length:
        raise CheckpointError(damaged)
    return sum(map(math.prod, shapes))
