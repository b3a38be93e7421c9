"""A file of pickled tensors → the same as safetensors. Nothing in it is run: torch refuses all but tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from nearfar.core.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path


def rewrite(file: Path, to: Path) -> None:
    """Write the tensors of ``file`` to ``to``. Raises CheckpointError where it holds anything but named tensors."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch each raise their own
        raise CheckpointError(f"{file}: holds more than tensors, or is damaged, and isn't read") from error
    if not isinstance(found, dict) or not all(isinstance(one, torch.Tensor) for one in found.values()):
        raise CheckpointError(f"{file}: holds something else than named tensors")
    # Tied weights share their memory, which the format doesn't know: each is written out.
    save_file({name: one.contiguous().clone() for name, one in found.items()}, to, {"format": "pt"})
