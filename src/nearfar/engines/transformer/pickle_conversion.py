"""A file of pickled tensors → safetensors, without running any code in it: torch refuses all but tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from nearfar.core.errors import CheckpointError


def convert_pickle(file: Path, target: Path) -> None:
    """Write the tensors of ``file`` to ``target``. Raises CheckpointError if it contains anything but named tensors."""
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch each raise their own
        raise CheckpointError(f"{file}: not read, because it is damaged or contains more than tensors") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{file}: contains something else than named tensors")
    # Tied weights share memory, which safetensors doesn't support: each is written out.
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, target, {"format": "pt"})
