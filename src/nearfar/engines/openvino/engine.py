"""One checkpoint in OpenVINO, on the processor: which precision it runs in, and the forwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nearfar.core.errors import EngineUnavailable
from nearfar.core.settings import usable_cores
from nearfar.engines.base import EngineInfo, OpenRequest
from nearfar.engines.common.padding import by_length
from nearfar.engines.common.precision import measure_loss
from nearfar.engines.common.representations import comparable, own_states, refuse_blind, represent, stack
from nearfar.engines.openvino.forward import Forward, computes
from nearfar.engines.openvino.once import Once
from nearfar.engines.openvino.store import Converted, forget, load_or_convert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.settings import Dtype
    from nearfar.core.types import FloatArray, Representation
    from nearfar.engines.common.precision import Loss
    from nearfar.models.tokenization.row import Row

_BATCH_TOKENS = 512  # padded, a stream
# A forward of one short text takes as long as 11 tokens more in a large batch: the weights have to be read once.
_MOST_PADDING = 32


class OpenVinoEngine:
    """Runs a compiled model, as many batches at once as it has streams."""

    def __init__(self, request: OpenRequest) -> None:
        self._recipe = request.recipe
        self._order = request
        self._hidden = Once(self._compile_hidden)
        self._threads = request.threads or usable_cores()
        refuse_blind(request)
        converted = load_or_convert(request)
        try:
            dtype, reason = self._open(request, converted)
        except (RuntimeError, _Unlike):  # openvino's word for a file that it can't read; numbers that aren't torch's
            if not converted.folder:
                raise
            forget(converted)
            dtype, reason = self._open(request, load_or_convert(request))
        self.info = EngineInfo(
            name="openvino",
            device="cpu",
            dtype=dtype,
            dtype_reason=reason,
            dim=request.recipe.dim,
            labels=max(len(request.recipe.labels), 1),
            outputs=request.recipe.outputs,
            batch_tokens=_BATCH_TOKENS,
            max_padding=_MOST_PADDING,
            max_concurrent_batches=self._forward.streams,
            compiles_per_shape=True,
        )

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Give (B, D) float32 vectors, pooled, projected and normalised as the Recipe says."""
        return self._forward.run(batch)

    def score(self, batch: Sequence[Row]) -> FloatArray:
        """Give the logits of texts or pairs, (B,) or (B, labels)."""
        if self._recipe.pad_token_id is not None:
            return self._forward.run(batch)
        # No padding id, no padding: a decoder's classifier looks for that id to find a row's last token.
        labels = len(self._recipe.labels)
        logits = np.empty((len(batch), labels) if labels > 1 else len(batch), dtype=np.float32)
        for places, rows in by_length(batch):
            logits[places] = self._forward.run(rows)
        return logits

    def represent(self, batch: Sequence[Row]) -> list[Representation]:
        """Give all that each row becomes, from one forward."""
        return represent(batch, self._forward.outputs(batch), self._recipe)

    def hidden_states(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Give each row's last hidden states (n, H) float32, by a model that is compiled when they are first wanted."""
        if not self._recipe.pooling:
            raise TypeError("this checkpoint pools nothing")
        return own_states(batch, self._hidden.get().run(batch))

    def close(self) -> None:
        """Let go of the weights."""
        del self._forward, self._hidden

    def _compile_hidden(self) -> Forward:
        converted = load_or_convert(self._order)  # the model itself isn't kept: most never need it again
        return Forward(converted.model, self._dtype, self._recipe, self._threads, hidden=True)

    def _open(self, request: OpenRequest, converted: Converted) -> tuple[str, str]:
        """Compile in the precision asked for, or the best that keeps the numbers; say which, and why."""
        if request.dtype != "auto":
            if request.dtype != "int8" and not computes(request.dtype):
                raise EngineUnavailable(f"this processor doesn't compute in {request.dtype}; use --dtype float32")
            return request.dtype, f"requested; {self._compile(request, converted, request.dtype)}"
        reason = "auto: this processor doesn't compute in bfloat16"
        if computes("bfloat16"):
            loss = self._compile(request, converted, "bfloat16")
            if loss.is_small:
                return "bfloat16", f"auto: {loss}"
            reason = f"auto: bfloat16 would lose too much: {loss}"
        self._compile(request, converted, "float32")
        return "float32", reason

    def _compile(self, request: OpenRequest, converted: Converted, dtype: Dtype) -> Loss:
        self._dtype = dtype
        self._forward = Forward(converted.model, dtype, request.recipe, self._threads)
        short, rest = request.probes[: len(request.probes) // 2], request.probes[len(request.probes) // 2 :]
        parts = [short, *([probe] for probe in rest)]  # the short ones together, so that padding is tried too
        loss = measure_loss(converted.exact, stack([self._compared(part) for part in parts]))
        if dtype == "float32" and not loss.is_rounding:
            raise _Unlike(
                f"{request.folder}: OpenVINO's numbers for {request.recipe.architecture} aren't torch's: {loss}; "
                "use --engine torch"
            )
        return loss

    def _compared(self, batch: Sequence[Row]) -> FloatArray:
        if not self._recipe.outputs:
            return self.score(batch)
        return comparable(self._forward.outputs(batch), batch)


class _Unlike(EngineUnavailable):
    """The compiled model and the checkpoint don't agree in float32."""
