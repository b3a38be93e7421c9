"""One open checkpoint in OpenVINO, on the CPU: chooses its precision and runs it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nearfar.core.errors import EngineUnavailable
from nearfar.core.settings import Dtype, usable_cores
from nearfar.core.types import FloatArray, Representation
from nearfar.engines.base import EngineInfo, OpenRequest
from nearfar.engines.common.padding import split_by_length, unpad
from nearfar.engines.common.precision import PrecisionLoss, flatten_outputs, measure_loss, stack
from nearfar.engines.common.representations import refuse_narrow_window, represent
from nearfar.engines.openvino.compiled_model import CompiledModel, supports
from nearfar.engines.openvino.model_cache import ConvertedModel, load_or_convert, remove_damaged
from nearfar.models.tokenization.row import Row

_BATCH_TOKENS = 512  # padded, per stream
# A forward of one short text takes as long as 11 tokens more in a large batch: it has to read all weights once.
_MAX_PADDING = 32


class OpenVinoEngine:
    """Runs a compiled model, as many batches at once as it has streams."""

    def __init__(self, request: OpenRequest) -> None:
        self._recipe = request.recipe
        self._request = request
        self._threads = request.threads or usable_cores()
        self._hidden_states: CompiledModel | None = None
        self._one_at_a_time = ThreadPoolExecutor(1, thread_name_prefix="compiling")
        refuse_narrow_window(request)
        converted = load_or_convert(request)
        try:
            dtype, reason = self._choose_dtype(converted)
        except (RuntimeError, _WrongNumbers):  # RuntimeError: openvino can't read the file
            if not converted.folder:
                raise
            remove_damaged(converted)
            dtype, reason = self._choose_dtype(load_or_convert(request))
        self.info = EngineInfo(
            name="openvino",
            device="cpu",
            dtype=dtype,
            dtype_reason=reason,
            dim=request.recipe.dim,
            labels=max(len(request.recipe.labels), 1),
            outputs=request.recipe.outputs,
            batch_tokens=_BATCH_TOKENS,
            max_padding=_MAX_PADDING,
            max_concurrent_batches=self._model.streams,
            compiles_per_shape=True,
        )

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Return (B, D) float32 vectors, pooled, projected and normalized as the Recipe defines."""
        return self._model.run(batch, 1)[0]

    def score(self, batch: Sequence[Row]) -> FloatArray:
        """Return the logits of texts or pairs, (B,) or (B, labels)."""
        if self._recipe.pad_token_id is not None:
            return self._model.run(batch, 1)[0]
        # A decoder's classifier finds a row's last token by the padding id; without one, rows can't be padded.
        labels = len(self._recipe.labels)
        logits = np.empty((len(batch), labels) if labels > 1 else len(batch), dtype=np.float32)
        for indices, rows in split_by_length(batch):
            logits[indices] = self._model.run(rows, 1)[0]
        return logits

    def represent(self, batch: Sequence[Row]) -> list[Representation]:
        """Return each row's outputs, from one forward."""
        return represent(batch, self._model.run(batch), self._recipe)

    def hidden_states(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Return each row's last hidden states (n, H) in float32, from a model compiled at the first call."""
        if not self._recipe.pooling:
            raise TypeError("this checkpoint doesn't pool")
        model = self._hidden_states or self._one_at_a_time.submit(self._compile_hidden_states).result()
        return unpad(batch, model.run(batch, 1)[0])

    def close(self) -> None:
        """Free the weights."""
        self._one_at_a_time.shutdown()
        del self._model, self._hidden_states

    def _compile_hidden_states(self) -> CompiledModel:
        """Compile the model unless another thread already has; runs on one thread only."""
        if self._hidden_states is None:
            converted = load_or_convert(self._request)  # not kept in memory: most models never need it again
            self._hidden_states = CompiledModel(
                converted.model, self._dtype, self._recipe, self._threads, hidden_states=True
            )
        return self._hidden_states

    def _choose_dtype(self, converted: ConvertedModel) -> tuple[str, str]:
        """Compile in the requested precision, or in the fastest that keeps the numbers; return it and why."""
        requested = self._request.dtype
        if requested != "auto":
            if requested != "int8" and not supports(requested):
                raise EngineUnavailable(f"this processor doesn't compute in {requested}; use --dtype float32")
            return requested, f"requested; {self._compile(converted, requested)}"
        reason = "auto: this processor doesn't compute in bfloat16"
        if supports("bfloat16"):
            loss = self._compile(converted, "bfloat16")
            if loss.is_small:
                return "bfloat16", f"auto: {loss}"
            reason = f"auto: bfloat16 would lose too much: {loss}"
        self._compile(converted, "float32")
        return "float32", reason

    def _compile(self, converted: ConvertedModel, dtype: Dtype) -> PrecisionLoss:
        self._dtype = dtype
        self._model = CompiledModel(converted.model, dtype, self._recipe, self._threads)
        probes = self._request.probes
        half = len(probes) // 2
        batches = [probes[:half], *([probe] for probe in probes[half:])]  # the short ones together, to test padding
        loss = measure_loss(converted.exact, stack([self._comparable(batch) for batch in batches]))
        if dtype == "float32" and not loss.is_rounding:
            raise _WrongNumbers(
                f"{self._request.folder}: OpenVINO's numbers for {self._recipe.architecture} differ from torch's: "
                f"{loss}; use --engine torch"
            )
        return loss

    def _comparable(self, batch: Sequence[Row]) -> FloatArray:
        return flatten_outputs(self._model.run(batch), batch) if self._recipe.outputs else self.score(batch)


class _WrongNumbers(EngineUnavailable):
    """The compiled model's float32 numbers differ from torch's."""
