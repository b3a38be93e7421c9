"""One open checkpoint in OpenVINO, on the CPU: chooses its precision and runs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import openvino

from nearfar.core.environment import usable_cores
from nearfar.core.errors import EngineUnavailable, SettingsError
from nearfar.core.settings import Dtype
from nearfar.core.types import FloatArray, Representation
from nearfar.engines.base import EngineInfo, OpenRequest
from nearfar.engines.common.padding import split_by_length, unpad
from nearfar.engines.common.precision import (
    MAX_INT8_LOGIT_CHANGE,
    MIN_QUERY_ORDER,
    PrecisionLoss,
    flatten_outputs,
    measure_loss,
    stack,
)
from nearfar.engines.common.representations import refuse_torch_only, represent
from nearfar.engines.openvino.blobs import compile_with_blob
from nearfar.engines.openvino.compiled_model import (
    ANY_LENGTH,
    ROW_STEP,
    CompiledModel,
    SingleRowModels,
    is_small,
    only_hidden_states,
    read,
    supports,
)
from nearfar.engines.openvino.model_cache import (
    ConvertedModel,
    load_or_convert,
    refuse_later,
    release_pages,
    remove_damaged,
)
from nearfar.models.tokenization.row import Row

# Padded, per stream. Texts of 256 tokens take 3 % less CPU in the larger batches. 2,048 tokens save no more, and take
# 80 MB.
_BATCH_TOKENS, _OFFLINE_TOKENS = 512, 1024
# A forward of one short text takes as long as 11 tokens more in a large batch: it has to read all weights once.
_MAX_PADDING = 32
# Probes a batch, beside the first one; and probes that run alone, since each length takes time to compile.
_PROBE_BATCH, _SINGLE_PROBES = 4, 12


class OpenVinoEngine:
    """Runs a compiled model, as many batches at once as it has streams."""

    def __init__(self, request: OpenRequest) -> None:
        self._recipe = request.recipe
        self._request = request
        self._threads = request.threads or usable_cores()
        self._hidden_states: CompiledModel | None = None
        self._single_row: SingleRowModels | None = None
        self._lock = threading.Lock()  # guards the number of forwards that run
        self._running = 0
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compiling")
        refuse_torch_only(request)
        converted = load_or_convert(request)
        try:
            dtype, reason = self._open_checked(converted)
        except MemoryError as error:  # what a forward raises that returns nothing
            raise EngineUnavailable(
                f"{request.folder}: OpenVINO computes nothing with {request.recipe.architecture}, or has too little "
                "memory; use --engine torch"
            ) from error
        except (RuntimeError, _WrongNumbers) as error:  # RuntimeError: openvino can't read the file
            if converted.folder and converted.is_new:
                refuse_later(converted, error)
            if converted.is_new or not converted.folder:
                raise
            remove_damaged(converted)
            converted = load_or_convert(request)
            dtype, reason = self._open_checked(converted)
        release_pages(converted)
        self.info = EngineInfo(
            name="openvino",
            device="cpu",
            dtype=dtype,
            dtype_reason=reason,
            dim=request.recipe.dim,
            labels=max(len(request.recipe.labels), 1),
            outputs=request.recipe.outputs,
            batch_tokens=_BATCH_TOKENS,
            offline_tokens=_OFFLINE_TOKENS,
            max_padding=_MAX_PADDING,
            max_concurrent_batches=self._model.streams,
            warm_up_s=1.0,  # the built-in model on two cores takes 0.36 s
        )

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Return (B, D) float32 vectors, pooled, projected and normalized as the Recipe defines."""
        return self._run(batch, 1)[0]

    def score(self, batch: Sequence[Row]) -> FloatArray:
        """Return the logits of texts or pairs, (B,) or (B, labels)."""
        return self._logits(batch, self._run)

    def represent(self, batch: Sequence[Row]) -> list[Representation]:
        """Return each row's outputs, from one forward."""
        return represent(batch, self._run(batch), self._recipe)

    def hidden_states(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Return each row's last hidden states (n, H) in float32, from a model compiled at the first call."""
        if not self._recipe.pooling:
            raise TypeError("this checkpoint doesn't pool")
        model = self._hidden_states or self._compiler.submit(self._compile_hidden_states).result()
        return unpad(batch, model.run(batch, 1)[0])

    def close(self) -> None:
        """Free the weights."""
        self._compiler.shutdown()
        del self._model, self._hidden_states, self._single_row

    def _run(self, batch: Sequence[Row], outputs: int | None = None) -> list[FloatArray]:
        """Run the batch; a single row on all threads if nothing else runs."""
        with self._lock:
            is_alone = not self._running and len(batch) == 1
            self._running += 1
        try:
            single = self._single_row.find(len(batch[0].ids)) if is_alone and self._single_row else None
            return (single or self._model).run(batch, outputs)
        finally:
            with self._lock:
                self._running -= 1

    def _open_checked(self, converted: ConvertedModel) -> tuple[str, str]:
        """Open the model; where it is new, also compare a row that is longer than the probes."""
        opened = self._open(converted)
        if converted.exact_of_long is not None:
            from nearfar.engines.openvino.conversion import long_row  # already imported

            found = self._comparable([long_row(self._request)], self._model)
            self._refuse_wrong(measure_loss(converted.exact_of_long, found, self._recipe.outputs))
        return opened

    def _open(self, converted: ConvertedModel) -> tuple[str, str]:
        """Compile the model; return its precision and why. Prepare to compile it again for single rows.

        Both then use the weights of the same object. Not for int8, which is there to save memory.
        """
        can_pad = self._recipe.pad_token_id is not None and self._recipe.max_tokens >= ROW_STEP
        request = self._request
        if not request.single_row_models or self._threads == 1 or not can_pad or request.dtype == "int8":
            return self._choose_dtype(converted)
        model = read(converted.model)
        if not is_small(model):
            return self._choose_dtype(converted)
        chosen = self._choose_dtype(replace(converted, model=model))
        self._single_row = SingleRowModels(partial(self._compile_single_row, converted, model), self._compiler)
        return chosen

    def _compile_single_row(self, converted: ConvertedModel, model: openvino.Model, length: int) -> CompiledModel:
        """Compile the model for single rows, and compare its numbers with those of the usual one."""
        compiled = CompiledModel(model, self._dtype, self._recipe, self._threads, row_length=length)
        end = None if length == ANY_LENGTH else length
        some = self._request.probes[:: max(len(self._request.probes) // _SINGLE_PROBES, 1)]
        probes = [row.cut(slice(end)) for row in some]
        usual, found = (
            stack([self._comparable([probe], either) for probe in probes]) for either in (self._model, compiled)
        )
        loss = measure_loss(usual, found, self._recipe.outputs)
        if not (loss.is_rounding if self._dtype == "float32" else loss.is_small):
            raise _WrongNumbers(f"{self._request.folder}: the numbers of single rows differ: {loss}")
        release_pages(converted)
        return compiled

    def _compile_hidden_states(self) -> CompiledModel:
        """Compile the model unless another thread already has; runs on one thread only."""
        if self._hidden_states is None:
            converted = load_or_convert(self._request)  # not kept in memory: most models never need it again
            model = only_hidden_states(converted.model)
            self._hidden_states = CompiledModel(model, self._dtype, self._recipe, self._threads)
        return self._hidden_states

    def _choose_dtype(self, converted: ConvertedModel) -> tuple[str, str]:
        """Compile in the requested precision, or in the fastest that keeps the numbers; return it and why."""
        requested = self._request.dtype
        if requested != "auto":
            if requested != "int8" and not supports(requested):
                raise EngineUnavailable(f"this CPU doesn't support {requested}; use --dtype float32")
            loss = self._compile(converted, requested)
            if requested == "int8" and self._recipe.task == "score" and len(self._recipe.labels) <= 1:
                _refuse_int8(self._request, loss)
            return requested, f"requested; {loss}{self._padding_change()}"
        reason = "auto: this CPU doesn't support bfloat16"
        if supports("bfloat16"):
            loss = self._compile(converted, "bfloat16")
            if loss.is_small:
                return "bfloat16", f"auto: {loss}{self._padding_change()}"
            reason = f"auto: bfloat16 would lose too much: {loss}"
        self._compile(converted, "float32")
        return "float32", reason

    def _compile(self, converted: ConvertedModel, dtype: Dtype) -> PrecisionLoss:
        self._dtype = dtype
        folder = converted.folder if dtype != "int8" else None  # None as well where several models share the weights
        self._model, outputs = compile_with_blob(
            folder,
            dtype,
            lambda cache_dir: CompiledModel(converted.model, dtype, self._recipe, self._threads, cache_dir=cache_dir),
            self._run_probes,
        )
        loss = measure_loss(converted.exact, outputs, self._recipe.outputs, self._request.probes)
        self._refuse_wrong(loss)
        return loss

    def _refuse_wrong(self, loss: PrecisionLoss) -> None:
        """Raise _WrongNumbers if float32 differs from torch's; a lower precision is judged elsewhere."""
        if self._dtype == "float32" and not loss.is_rounding:
            raise _WrongNumbers(
                f"{self._request.folder}: OpenVINO's numbers for {self._recipe.architecture} differ from torch's: "
                f"{loss}; use --engine torch"
            )

    def _probe_batches(self) -> list[Sequence[Row]]:
        """Return the probes in batches, the short ones in one, to test padding."""
        probes = self._request.probes
        half = len(probes) // 2
        return [probes[:half], *(probes[at : at + _PROBE_BATCH] for at in range(half, len(probes), _PROBE_BATCH))]

    def _padding_change(self) -> str:
        """Measure how far numbers differ between some probes alone and all in batches; return a phrase."""
        together = self._probe_batches()[0][:_SINGLE_PROBES]
        alone = stack([self._comparable([probe], self._model) for probe in together])
        change = measure_loss(alone, self._comparable(together, self._model), self._recipe.outputs)
        if change.of_scores:
            return f"; alone and in a batch the logits differ by up to {change.worst:.4f}"
        return f"; alone and in a batch the cosine is at least {change.worst:.5f}"

    def _run_probes(self, model: CompiledModel) -> FloatArray:
        """Return the numbers of all probes, in batches at once."""
        with ThreadPoolExecutor(model.streams) as threads:
            return stack(list(threads.map(lambda batch: self._comparable(batch, model), self._probe_batches())))

    def _comparable(self, batch: Sequence[Row], model: CompiledModel) -> FloatArray:
        """Return a model's numbers in a form in which two models can be compared."""
        if self._recipe.outputs:
            return flatten_outputs(model.run(batch), batch)
        return self._logits(batch, model.run)

    def _logits(self, batch: Sequence[Row], run: Callable[[Sequence[Row], int], list[FloatArray]]) -> FloatArray:
        if self._recipe.pad_token_id is not None:
            return run(batch, 1)[0]
        # A decoder's classifier finds a row's last token by the padding id; without one, rows can't be padded.
        labels = len(self._recipe.labels)
        logits = np.empty((len(batch), labels) if labels > 1 else len(batch), dtype=np.float32)
        for indices, rows in split_by_length(batch):
            logits[indices] = run(rows, 1)[0]
        return logits


def _refuse_int8(request: OpenRequest, loss: PrecisionLoss) -> None:
    if not loss.allows_int8:
        raise SettingsError(
            f"{request.folder}: int8 would change this reranker's order too much: {loss}; allowed are "
            f'{MAX_INT8_LOGIT_CHANGE} and {MIN_QUERY_ORDER:.0%} of one query; set dtype = "auto" for this model'
        )


class _WrongNumbers(EngineUnavailable):
    """The compiled model's float32 numbers differ from torch's."""
