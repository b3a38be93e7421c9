"""A safetensors file → its arrays, not yet read, or one sentence that names the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import mlx.core as mx

from nearfar.core.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path


def load_arrays(file: Path) -> dict[str, mx.array]:
    """Give the arrays by name. Raises CheckpointError for a file that is missing or damaged."""
    try:
        return cast("dict[str, mx.array]", mx.load(str(file)))
    except Exception as error:  # mlx raises what C++ gave it
        raise CheckpointError(f"{file}: can't be loaded: {error}") from error
