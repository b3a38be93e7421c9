"""One open checkpoint in Torch.

On a CPU, rows are packed where the architecture allows it, linears use the fastest kernel, and every batch runs on
one core if that is fast enough. On cuda and mps batches are padded; that path has only been run on CPUs so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nearfar.core.types import FloatArray, Representation
from nearfar.engines.base import EngineInfo, OpenRequest
from nearfar.engines.common.representations import represent
from nearfar.engines.torch.choices import MAX_PADDING, PACKED_TOKENS, PADDED_TOKENS
from nearfar.engines.torch.loading import open_checkpoint
from nearfar.engines.torch.packing import PackedModel
from nearfar.engines.transformer.heads import PoolingHead
from nearfar.models.tokenization.row import Row


class TorchEngine:
    """Runs a checkpoint's own torch modules."""

    def __init__(self, request: OpenRequest) -> None:
        opened = open_checkpoint(request)
        self._model = opened.model
        self._recipe = request.recipe
        self._threads = opened.parallelism.threads
        self._pooling = PoolingHead(request.recipe) if request.recipe.leaves_out_prompt else None
        packed = isinstance(opened.model, PackedModel)
        self.info = EngineInfo(
            name="torch",
            device=opened.device,
            dtype=opened.choice.dtype,
            dim=request.recipe.dim,
            labels=max(len(request.recipe.labels), 1),
            outputs=request.recipe.outputs,
            batching=opened.batching,
            batch_tokens=PACKED_TOKENS if packed else PADDED_TOKENS[opened.device],
            padded=not packed,
            max_padding=MAX_PADDING[opened.device],
            max_concurrent_batches=opened.parallelism.batches,
            warm_up_s=0.25,
            dtype_reason=opened.choice.reason,
            shares_prefixes=isinstance(opened.model, PackedModel) and opened.model.shares_prefixes,
        )

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Return (B, D) float32 vectors, pooled, projected and normalized as the Recipe defines."""
        torch.set_num_threads(self._threads)  # a setting of each calling thread; 0.1 µs
        with torch.inference_mode():
            if self._pooling and any(row.unpooled for row in batch):
                return self._embed_without_prompt(self._pooling, batch)
            array: FloatArray = self._model(batch).cpu().numpy()
            return array

    score = embed  # logits (B,) or (B, labels): the same forward, with a classifier in place of pooling

    def _embed_without_prompt(self, head: PoolingHead, batch: Sequence[Row]) -> FloatArray:
        """Return vectors of the tokens after each row's prompt; there are some."""
        pooled = []
        for row, states in zip(batch, self._model.hidden_states(batch), strict=True):
            kept = states[None, row.unpooled :]
            pooled.append(head.pool(kept, torch.ones(kept.shape[:2], dtype=torch.long)))
        array: FloatArray = head.project(torch.cat(pooled)).numpy()
        return array

    def represent(self, batch: Sequence[Row]) -> list[Representation]:
        """Return each row's outputs, from one forward."""
        if isinstance(self._model, PackedModel) or self._pooling:
            return [Representation(dense=vector) for vector in self.embed(batch)]
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            outputs = [output.float().cpu().numpy() for output in self._model.outputs(batch)]
        return represent(batch, outputs, self._recipe)

    def hidden_states(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Return each row's last hidden states (n, H) in float32."""
        if not self._recipe.pooling:
            raise TypeError("this checkpoint doesn't pool")
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            return [states.cpu().numpy() for states in self._model.hidden_states(batch)]

    def close(self) -> None:
        """Free the weights, and the GPU memory they were in."""
        del self._model
        if self.info.device == "cuda":
            torch.cuda.empty_cache()
