"""Rows padded on the right to the longest: the path that every family can take, on every device.

Causal models then see the same positions as without padding. Lengths may be rounded up, so that few shapes occur.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nearfar.engines.common.padding import by_length, pad, rounded_length
from nearfar.engines.transformer.module import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.models.recipe.recipe import Recipe
    from nearfar.models.tokenization.row import Row


class PaddedModel:
    """Runs a transformer, and the pooling or the classifier after it, on padded batches."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe, device: str, length_step: int = 1) -> None:
        self._answer = Answer(model, recipe).to(device)
        self._recipe = recipe
        self._device = device
        self._length_step = length_step
        # No padding id, no padding: a decoder's classifier looks for that id to find a row's last token.
        self._one_length = recipe.task == "score" and recipe.pad_token_id is None

    def __call__(self, batch: Sequence[Row]) -> torch.Tensor:
        """Give the first output: vectors (B, D), logits (B,) or (B, labels); on the device."""
        if not self._one_length:
            return self.outputs(batch)[0]
        labels = len(self._recipe.labels)
        logits = torch.empty((len(batch), labels) if labels > 1 else len(batch), device=self._device)
        for places, rows in by_length(batch):
            logits[places] = self._run(rows, len(rows[0].ids))[0]
        return logits

    def outputs(self, batch: Sequence[Row]) -> Sequence[torch.Tensor]:
        """Give all that the recipe's outputs name, each with the batch as its first axis."""
        return self._run(batch, rounded_length(_longest(batch), self._length_step, self._recipe.max_tokens))

    def hidden(self, batch: Sequence[Row]) -> list[torch.Tensor]:
        """Give each row's last hidden states (n, H)."""
        states = self._answer.hidden(**self._inputs(batch, _longest(batch)))
        return [states[at, : len(row.ids)] for at, row in enumerate(batch)]

    def _run(self, batch: Sequence[Row], length: int) -> Sequence[torch.Tensor]:
        found: torch.Tensor | tuple[torch.Tensor, ...] = self._answer(**self._inputs(batch, length))
        return found if isinstance(found, tuple) else (found,)

    def _inputs(self, batch: Sequence[Row], length: int) -> dict[str, torch.Tensor]:
        padded = pad(batch, self._recipe.pad_token_id or 0, length)
        named = {"input_ids": padded.ids, "attention_mask": padded.mask, "token_type_ids": padded.types}
        return {name: torch.from_numpy(of).to(self._device) for name, of in named.items() if of is not None}


def _longest(batch: Sequence[Row]) -> int:
    return max(len(row.ids) for row in batch)
