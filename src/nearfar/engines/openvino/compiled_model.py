"""Models compiled for this CPU, for batches and for rows that run alone. Their forwards run outside the GIL."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from nearfar.core.settings import Dtype
from nearfar.core.types import FloatArray
from nearfar.engines.common.padding import pad, round_up_length
from nearfar.engines.openvino.quantization import linear_weights, quantize_weights
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row

_log = logging.getLogger(__name__)
# The first call builds a table. Two threads that do so at once deadlock: one has the GIL, and the other the lock of the
# table. An import runs in one thread.
openvino.Type.f32.to_dtype()

# The operation of a converted model that returns the last hidden states.
HIDDEN_STATES = "nearfar_hidden"
# Batches at once, each on its part of the cores: on two cores, two of one thread each beat one of two. That four are
# enough for more cores is a guess.
_MAX_STREAMS = 4
# Shapes with cached kernels, per kind of layer. OpenVINO's default of 5,000 grows for as long as new shapes occur; with
# none a forward takes twice as long, with 32 no longer than with all.
_CACHED_SHAPES = 64
# A model for single rows pads them to a multiple of this, so that few shapes occur.
ROW_STEP = 16
ANY_LENGTH = -1
# Two threads finish a longer row as much sooner, but another request that arrives meanwhile has to share them longer.
_LONGEST = 512
# So many rows have to run alone before a model is compiled for their length. A start runs fewer.
_ROWS_BEFORE = 16
# The most memory that linear layers may take, in float32. Each model compiled here takes that again: 0.8 to 1.2 times
# as much in float32, and 0.5 to 0.8 times in bfloat16.
_MAX_WEIGHT_BYTES = 128 * 2**20
# When memory runs out during a forward, openvino may return without an error, and its outputs are still the previous
# batch's: another text's vectors. So outputs are overwritten with this value, which no layer returns, after each read.
_NOT_WRITTEN = np.float32(-2.718281e38)
# OpenVINO's names for a precision, and for the CPU's capability to compute in it.
_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}


def supports(dtype: Dtype) -> bool:
    """Return whether this CPU has instructions for ``dtype``; openvino would silently compute in float32."""
    return _CAPABILITIES[dtype] in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class CompiledModel:
    """Rows → outputs, on padded batches. ``run`` may be called from any thread; ``streams`` of them run at once.

    With ``row_length`` it runs one row at a time, on all threads: of up to that many tokens, or of ANY_LENGTH.
    ``cache_dir`` is the folder of the model's file, for compiled models; ``was_cached`` is True if one was read.
    """

    def __init__(  # noqa: PLR0913 — each is a property of one model
        self,
        model: Path | openvino.Model,
        dtype: Dtype,
        recipe: Recipe,
        threads: int,
        *,
        row_length: int | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self.streams = 1 if row_length else min(threads, _MAX_STREAMS)
        self._padding_id = recipe.pad_token_id or 0
        self._length_step = ROW_STEP if row_length else 1
        self._max_tokens = recipe.max_tokens
        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": self.streams,
            "CPU_RUNTIME_CACHE_CAPACITY": _CACHED_SHAPES,
            "ENABLE_CPU_PINNING": False,  # so the OS can move a thread away from a core that another process uses
        }
        if cache_dir:  # OpenVINO's own cache; what it writes there needs the weights next to it
            options |= {"CACHE_DIR": str(cache_dir), "CACHE_MODE": "OPTIMIZE_SIZE"}
        self._compiled = _compile(_only_one_row(model, row_length) if row_length else model, dtype, options)
        self.was_cached = bool(self._compiled.get_property("LOADED_FROM_CACHE"))
        self._outputs = len(self._compiled.outputs)
        self._takes_types = len(self._compiled.inputs) == 3  # noqa: PLR2004 — ids, mask and types
        self._idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(self.streams):
            self._idle.put(self._compiled.create_infer_request())

    def run(self, batch: Sequence[Row], outputs: int | None = None) -> list[FloatArray]:
        """Return the first ``outputs`` of the model's outputs, float32, or all of them.

        Raises MemoryError where openvino returned without computing them.
        """
        inputs = self._arrays(batch)
        request = self._idle.get()
        try:
            found = request.infer(inputs, share_inputs=True)  # inputs aren't copied
            results: list[FloatArray] = [found[at].copy() for at in range(outputs or self._outputs)]
            refuse_unwritten(results, len(batch))
            for at in range(self._outputs):
                request.get_output_tensor(at).data.fill(_NOT_WRITTEN)
        except Exception:
            del request  # and the memory that it allocated
            request = self._compiled.create_infer_request()
            raise
        finally:
            self._idle.put(request)
        return results

    def _arrays(self, batch: Sequence[Row]) -> list[npt.NDArray[np.int64]]:
        """Return ids and mask, and types where the model takes them, (B, T) each."""
        length = longest = max([len(row.ids) for row in batch])
        if self._length_step > 1:
            length = round_up_length(longest, self._length_step, self._max_tokens)
        if len(batch) == 1 and length == longest and not batch[0].type_ids and not batch[0].unattended:
            ids = np.array([batch[0].ids], dtype=np.int64)
            return [ids, np.ones_like(ids), np.zeros_like(ids)][: 2 + self._takes_types]
        padded = pad(batch, self._padding_id, length)
        types = np.zeros_like(padded.mask) if padded.types is None else padded.types
        return [padded.ids, padded.mask, types][: 2 + self._takes_types]


class SingleRowModels:
    """Compiles the models in the background, each when rows of its length have turned out to run alone.

    A row of up to 16 tokens gets the static shape (1, 16), which is a third faster than any length. ``compile_model``
    is called with a length, on a thread of ``background``.
    """

    def __init__(self, compile_model: Callable[[int], CompiledModel], background: Executor) -> None:
        self._compile_model = compile_model
        self._background = background
        self._rows: Counter[int] = Counter()
        self._compiled: dict[int, CompiledModel] = {}

    def find(self, tokens: int) -> CompiledModel | None:
        """Return the model for a row that runs alone; None if there isn't one, or not yet. Not thread-safe."""
        if tokens > _LONGEST:
            return None
        length = ROW_STEP if tokens <= ROW_STEP else ANY_LENGTH
        self._rows[length] += 1
        if self._rows[length] == _ROWS_BEFORE:
            self._background.submit(self._compile, length)
        return self._compiled.get(length)

    def _compile(self, length: int) -> None:
        try:
            self._compiled[length] = self._compile_model(length)
        except Exception:  # noqa: BLE001 — the usual model runs these rows as well
            _log.warning("no model was compiled for single rows: they run on one stream's threads", exc_info=True)


def is_small(model: openvino.Model) -> bool:
    """Return whether the model may be compiled more than once, by the memory that this takes."""
    weights = map(linear_weights, model.get_ops())
    return sum(matrix.nbytes for matrix in weights if matrix is not None) <= _MAX_WEIGHT_BYTES


def refuse_unwritten(results: Sequence[FloatArray], rows: int) -> None:
    """Raise MemoryError if the results are an earlier batch's."""
    for result in results:
        if len(result) != rows or (result == _NOT_WRITTEN).any():
            raise MemoryError("openvino had no memory for the forward, and left its outputs unchanged")


def read(model: Path | openvino.Model) -> openvino.Model:
    """Return the model. Its weights stay in the file, which is memory-mapped."""
    return openvino.Core().read_model(model) if isinstance(model, Path) else model


def only_hidden_states(model: Path | openvino.Model) -> openvino.Model:
    """Return the model with the last hidden states as its only output."""
    whole = read(model)
    operation = next(op for op in whole.get_ops() if op.get_friendly_name() == HIDDEN_STATES)
    return openvino.Model([operation.output(0)], whole.get_parameters())


def _only_one_row(model: Path | openvino.Model, length: int) -> openvino.Model:
    """Return a copy of the model for batches of one row; it refers to the same weights."""
    single = read(model).clone()
    single.reshape({port: openvino.PartialShape([1, length]) for port in single.inputs})
    return single


def _compile(model: Path | openvino.Model, dtype: Dtype, options: dict[str, Any]) -> openvino.CompiledModel:
    core = openvino.Core()
    if dtype == "int8":
        weights = read(model)
        quantize_weights(weights)
        hint = _HINTS["bfloat16" if supports("bfloat16") else "float32"]
        options |= {"INFERENCE_PRECISION_HINT": hint, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}
        return core.compile_model(weights, "CPU", options)
    options["INFERENCE_PRECISION_HINT"] = _HINTS[dtype]
    return core.compile_model(model, "CPU", options)
