"""On a GPU a batch is copied there once, and nothing is read back before the results.

On the meta device, which has shapes and no numbers, reading one is an error, as it would be a pause on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from checkpoints import FAMILIES, write_transformer
from torch.utils._python_dispatch import TorchDispatchMode

from nearfar.engines.base import OpenRequest
from nearfar.engines.torch.attention import keep_masks_on_device
from nearfar.engines.torch.padded import PaddedModel
from nearfar.engines.transformer.loading import load_transformer
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

BATCH = [Row(ids, None, len(ids), 0) for ids in ([5, 6, 7, 8], [5, 6], [9])]
READS_BACK = {"mpnet"}  # its own attention builds its own mask


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts copies from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, function: Callable[..., Any], _types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type == "meta":
            self.count += any(isinstance(each, torch.Tensor) and each.device.type == "cpu" for each in args)
        return result


def load(folder: Path) -> tuple[Any, PaddedModel]:
    """Load the checkpoint, and the way it runs on the CPU."""
    recipe = read_recipe(folder)
    request = OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype="float32")
    model = load_transformer(request, torch.float32)
    return model, PaddedModel(model, recipe, "cpu")


@pytest.mark.parametrize("labels", [None, 1])
@pytest.mark.parametrize("family", sorted({*FAMILIES} - READS_BACK))
def test_a_forward_copies_its_batch_once_and_reads_nothing_back(
    family: str, labels: int | None, tmp_path: Path
) -> None:
    folder = write_transformer(tmp_path / family, family, labels=labels)
    model, _ = load(folder)
    padded = PaddedModel(model, read_recipe(folder), "meta", 16)

    with torch.inference_mode(), Copies() as copies:
        result = padded(BATCH)

    assert len(BATCH) == len(result)
    assert 1 == copies.count


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_masks_that_stay_on_the_device_change_no_number(family: str, tmp_path: Path) -> None:
    model, padded = load(write_transformer(tmp_path / family, family))
    with torch.inference_mode():
        expected = [padded(rows).numpy() for rows in (BATCH, BATCH[:1])]
        keep_masks_on_device(model)
        found = [padded(rows).numpy() for rows in (BATCH, BATCH[:1])]

    for before, after in zip(expected, found, strict=True):
        np.testing.assert_allclose(before, after, atol=1e-5)
