"""One open checkpoint in Torch.

On a processor rows are packed where the family can be, linears go to the fastest kernel, and every batch gets a core of
its own where a core is fast enough. On cuda and mps batches are padded; that part has only ever run on a processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nearfar.core.types import Representation
from nearfar.engines.base import EngineInfo, OpenRequest
from nearfar.engines.common.representations import represent
from nearfar.engines.torch.devices import MOST_PADDING, batch_tokens
from nearfar.engines.torch.loading import open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.types import FloatArray
    from nearfar.models.tokenization.row import Row


class TorchEngine:
    """Runs a checkpoint's own torch modules."""

    def __init__(self, request: OpenRequest) -> None:
        opened = open_checkpoint(request)
        self._run = opened.run
        self._outputs = opened.outputs
        self._hidden = opened.hidden
        self._recipe = request.recipe
        self._threads = opened.share.threads
        self._device = opened.device
        self.info = EngineInfo(
            name="torch",
            device=opened.device,
            dtype=opened.choice.dtype,
            dim=request.recipe.dim,
            labels=max(len(request.recipe.labels), 1),
            outputs=request.recipe.outputs,
            batch_tokens=batch_tokens(opened.device, packed=opened.packed),
            padded=not opened.packed,
            max_padding=MOST_PADDING[opened.device],
            max_concurrent_batches=opened.share.parallel,
            dtype_reason=opened.choice.reason,
            shares_prefixes=opened.shares_prefixes,
        )

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Give (B, D) float32 vectors, pooled, projected and normalised as the Recipe says."""
        return self._numbers(batch)

    def score(self, batch: Sequence[Row]) -> FloatArray:
        """Give the logits of texts or pairs, (B,) or (B, labels)."""
        return self._numbers(batch)

    def represent(self, batch: Sequence[Row]) -> list[Representation]:
        """Give all that each row becomes, from one forward."""
        if self._outputs is None:
            return [Representation(dense=vector) for vector in self._numbers(batch)]
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            found = [output.float().cpu().numpy() for output in self._outputs(batch)]
        return represent(batch, found, self._recipe)

    def hidden_states(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Give each row's last hidden states (n, H) float32."""
        if not self._recipe.pooling:
            raise TypeError("this checkpoint pools nothing")
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            return [states.cpu().numpy() for states in self._hidden(batch)]

    def close(self) -> None:
        """Let go of the weights, and of the GPU memory they were in."""
        del self._run, self._outputs, self._hidden
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def _numbers(self, batch: Sequence[Row]) -> FloatArray:
        torch.set_num_threads(self._threads)  # every calling thread has a number of its own; 0.1 µs
        with torch.inference_mode():
            array: FloatArray = self._run(batch).cpu().numpy()
            return array
