"""Rows padded on the right to the longest: the path for every architecture and device.

Causal models then see the same positions as without padding. Lengths may be rounded up, so that few shapes occur.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nearfar.engines.common.padding import pad, round_up_length, split_by_length
from nearfar.engines.torch.attention import keep_masks_on_device
from nearfar.engines.transformer.heads import ModelWithHeads
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row


class PaddedModel:
    """Runs a transformer, and the heads or the classifier after it, on padded batches."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe, device: str, length_step: int = 1) -> None:
        if device != "cpu":
            keep_masks_on_device(model)
        self._model = ModelWithHeads(model, recipe).to(device)
        self._recipe = recipe
        self._device = device
        self._length_step = length_step
        # A decoder's classifier finds a row's last token by the padding id; without one, rows can't be padded.
        self._needs_equal_lengths = recipe.task == "score" and recipe.pad_token_id is None and not recipe.pooling

    def __call__(self, batch: Sequence[Row]) -> torch.Tensor:
        """Return the first output: vectors (B, D), logits (B,) or (B, labels); on the device."""
        if not self._needs_equal_lengths:
            return self.outputs(batch)[0]
        logits: dict[int, torch.Tensor] = {}
        for indices, rows in split_by_length(batch):
            logits.update(zip(indices, self._run(rows, len(rows[0].ids))[0], strict=True))
        return torch.stack([logits[at] for at in range(len(batch))])

    def outputs(self, batch: Sequence[Row]) -> Sequence[torch.Tensor]:
        """Return everything that the recipe's outputs name, each with the batch as its first axis."""
        return self._run(batch, round_up_length(_longest(batch), self._length_step, self._recipe.max_tokens))

    def hidden_states(self, batch: Sequence[Row]) -> list[torch.Tensor]:
        """Return each row's last hidden states (n, H), on the CPU."""
        states = self._model.hidden_states(**self._inputs(batch, _longest(batch))).cpu()  # in one copy
        return [states[at, : len(row.ids)] for at, row in enumerate(batch)]

    def _run(self, batch: Sequence[Row], length: int) -> Sequence[torch.Tensor]:
        output: torch.Tensor | tuple[torch.Tensor, ...] = self._model(**self._inputs(batch, length))
        return output if isinstance(output, tuple) else (output,)

    def _inputs(self, batch: Sequence[Row], length: int) -> dict[str, torch.Tensor]:
        padded = pad(batch, self._recipe.pad_token_id or 0, length)
        arrays = {"input_ids": padded.ids, "attention_mask": padded.mask}
        if padded.types is not None:
            arrays["token_type_ids"] = padded.types
        together = torch.from_numpy(np.stack([*arrays.values()])).to(self._device)  # (2 or 3, B, T), in one copy
        return dict(zip(arrays, together, strict=True))


def _longest(batch: Sequence[Row]) -> int:
    return max(len(row.ids) for row in batch)
