"""One checkpoint in Torch, opened, used and closed on one thread.

Texts are padded on the right, always: causal models then see the same positions as without padding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from nearfar.engines import EngineInfo, EngineOrder
from nearfar.engines.module import Answer, load_transformer
from nearfar.engines.padding import pad
from nearfar.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.config import Device
    from nearfar.models.tokens import Row
    from nearfar.types import FloatArray

# Padded budgets: 1,024 tokens beat 4,096 and 16,384 on two cores by length-sorted batches; a GPU wants to be
# filled, and the figure for it is a guess.
_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384, "mps": 4096}


class TorchEngine:
    """Runs a checkpoint's own torch modules on padded batches."""

    def __init__(self, order: EngineOrder) -> None:
        self._recipe = order.recipe
        self._device = torch.device(_device(order.device))
        dtype = torch.float32 if order.dtype == "auto" else getattr(torch, order.dtype)
        self._answer = Answer(load_transformer(order, dtype), order.recipe).to(self._device)
        self.info = EngineInfo(
            name="torch",
            device=str(self._device),
            dtype=str(dtype).removeprefix("torch."),
            dim=order.recipe.dim,
            batch_tokens=_BATCH_TOKENS[self._device.type],
        )

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Give (B, D) float32 vectors, pooled, projected and normalised as the Recipe says."""
        return self._run(batch)

    def score(self, batch: Sequence[Row]) -> FloatArray:
        """Give the (B,) logits of pairs."""
        if self._recipe.pad_token_id is not None:
            return self._run(batch)
        # No padding id, no padding: a decoder's classifier looks for that id to find a row's last token.
        logits = np.empty(len(batch), dtype=np.float32)
        for length in {len(row.ids) for row in batch}:
            places = [at for at, row in enumerate(batch) if len(row.ids) == length]
            logits[places] = self._run([batch[at] for at in places])
        return logits

    def close(self) -> None:
        """Let go of the weights, and of the GPU memory they were in."""
        del self._answer
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _run(self, batch: Sequence[Row]) -> FloatArray:
        with torch.inference_mode():
            array: FloatArray = self._answer(**self._inputs(batch)).cpu().numpy()
            return array

    def _inputs(self, batch: Sequence[Row]) -> dict[str, torch.Tensor]:
        padded = pad(batch, self._recipe.pad_token_id or 0)
        named = {"input_ids": padded.ids, "attention_mask": padded.mask, "token_type_ids": padded.types}
        return {name: torch.from_numpy(of).to(self._device) for name, of in named.items() if of is not None}


def _device(asked: Device) -> str:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if asked == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[asked]:
        raise EngineUnavailable(
            f"torch sees no {asked} device on this machine; it has: {', '.join(n for n in there if there[n])}"
        )
    return asked
