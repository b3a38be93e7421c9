"""Rows padded on the right to the longest: the path for every architecture and device.

Causal models then see the same positions as without padding. Lengths may be rounded up, so that few shapes occur.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nearfar.engines.common.padding import pad, round_up_length, split_by_length
from nearfar.engines.transformer.heads import ModelWithHeads
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row


class PaddedModel:
    """Runs a transformer, and the heads or the classifier after it, on padded batches."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe, device: str, length_step: int = 1) -> None:
        self._model = ModelWithHeads(model, recipe).to(device)
        self._recipe = recipe
        self._device = device
        self._length_step = length_step
        # A decoder's classifier finds a row's last token by the padding id; without one, rows can't be padded.
        self._needs_equal_lengths = recipe.task == "score" and recipe.pad_token_id is None

    def __call__(self, batch: Sequence[Row]) -> torch.Tensor:
        """Return the first output: vectors (B, D), logits (B,) or (B, labels); on the device."""
        if not self._needs_equal_lengths:
            return self.outputs(batch)[0]
        labels = len(self._recipe.labels)
        logits = torch.empty((len(batch), labels) if labels > 1 else len(batch), device=self._device)
        for indices, rows in split_by_length(batch):
            logits[indices] = self._run(rows, len(rows[0].ids))[0]
        return logits

    def outputs(self, batch: Sequence[Row]) -> Sequence[torch.Tensor]:
        """Return everything that the recipe's outputs name, each with the batch as its first axis."""
        return self._run(batch, round_up_length(_longest(batch), self._length_step, self._recipe.max_tokens))

    def hidden_states(self, batch: Sequence[Row]) -> list[torch.Tensor]:
        """Return each row's last hidden states (n, H)."""
        states = self._model.hidden_states(**self._inputs(batch, _longest(batch)))
        return [states[at, : len(row.ids)] for at, row in enumerate(batch)]

    def _run(self, batch: Sequence[Row], length: int) -> Sequence[torch.Tensor]:
        output: torch.Tensor | tuple[torch.Tensor, ...] = self._model(**self._inputs(batch, length))
        return output if isinstance(output, tuple) else (output,)

    def _inputs(self, batch: Sequence[Row], length: int) -> dict[str, torch.Tensor]:
        padded = pad(batch, self._recipe.pad_token_id or 0, length)
        arrays = {"input_ids": padded.ids, "attention_mask": padded.mask, "token_type_ids": padded.types}
        return {name: torch.from_numpy(of).to(self._device) for name, of in arrays.items() if of is not None}


def _longest(batch: Sequence[Row]) -> int:
    return max(len(row.ids) for row in batch)
