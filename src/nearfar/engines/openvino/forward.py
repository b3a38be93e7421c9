"""A model compiled for this processor. Its forwards run outside Python's lock, several at a time."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from nearfar.engines.common.padding import pad
from nearfar.engines.openvino.int8 import quantize_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.settings import Dtype
    from nearfar.core.types import FloatArray
    from nearfar.models.recipe.recipe import Recipe
    from nearfar.models.tokenization.row import Row

HIDDEN = "nearfar_hidden"  # the operation of a converted model whose output are the last hidden states
# How many batches run at once, each on its share of the cores: with two cores, two of one thread each beat one of two.
# That four are enough for more cores is a guess.
_MOST_STREAMS = 4
# Shapes whose kernels are kept, for each kind of layer. openvino keeps 5,000, and grows for as long as new ones come;
# with none it takes twice the time, with 32 no longer than with all.
_KEPT_SHAPES = 64
# Where memory runs out during a forward, openvino doesn't always say so: it returns, and its outputs are still those of
# the batch before, another text's vectors. So they are overwritten with this, which no layer gives, once they are read.
_UNTOUCHED = np.float32(-2.718281e38)
# What openvino calls a precision, and what a processor must be capable of to compute in it.
_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}


def computes(dtype: Dtype) -> bool:
    """Tell whether this processor has instructions for ``dtype``; openvino would quietly compute in float32."""
    return _CAPABILITIES[dtype] in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class Forward:
    """Padded rows → answers. ``run`` may be called from ``streams`` threads at once.

    With ``hidden`` its only output are the last hidden states (B, T, H).
    """

    def __init__(
        self, model: Path | openvino.Model, dtype: Dtype, recipe: Recipe, threads: int, *, hidden: bool = False
    ) -> None:
        self.streams = min(threads, _MOST_STREAMS)
        self._padding = recipe.pad_token_id or 0
        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": self.streams,
            "CPU_RUNTIME_CACHE_CAPACITY": _KEPT_SHAPES,
            "ENABLE_CPU_PINNING": False,  # a thread that shares its core with a neighbour must be free to leave it
        }
        self._compiled = compiled = _compile(_only_hidden(model) if hidden else model, dtype, options)
        self._outputs = len(compiled.outputs)
        self._typed = len(compiled.inputs) == 3  # noqa: PLR2004 — ids, mask and types
        # Those at rest. A deque's ends may be taken from and given to by several threads.
        self._requests = deque(compiled.create_infer_request() for _ in range(self.streams))

    def run(self, batch: Sequence[Row]) -> FloatArray:
        """Give the first output, (B, D), (B,) or (B, labels) float32."""
        return self._infer(batch, 1)[0]

    def outputs(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Give every output of the model."""
        return self._infer(batch, self._outputs)

    def _infer(self, batch: Sequence[Row], outputs: int) -> list[FloatArray]:
        padded = pad(batch, self._padding)
        inputs = [padded.ids, padded.mask]
        if self._typed:
            inputs.append(padded.mask * 0 if padded.types is None else padded.types)
        request = self._requests.pop()
        try:
            # Inputs are read where they lie; the answer is copied out before the request is given to anyone else.
            found = request.infer(inputs, share_inputs=True)
            answers: list[FloatArray] = [found[at].copy() for at in range(outputs)]
            _refuse_untouched(answers, len(batch))
            for at in range(self._outputs):
                request.get_output_tensor(at).data.fill(_UNTOUCHED)
        except Exception:
            del request  # and what memory it got as far as it came
            request = self._compiled.create_infer_request()
            raise
        finally:
            self._requests.append(request)
        return answers


def _refuse_untouched(answers: Sequence[FloatArray], rows: int) -> None:
    """Raise MemoryError where the answers are those of an earlier batch."""
    if any(len(answer) != rows or (answer == _UNTOUCHED).any() for answer in answers):
        raise MemoryError("openvino had no memory for the forward, and left its outputs as they were")


def _only_hidden(model: Path | openvino.Model) -> openvino.Model:
    """Give the model with the last hidden states in the place of its outputs."""
    whole = openvino.Core().read_model(model) if isinstance(model, Path) else model
    hidden = next(found for found in whole.get_ops() if found.get_friendly_name() == HIDDEN)
    return openvino.Model([hidden.output(0)], whole.get_parameters())


def _compile(model: Path | openvino.Model, dtype: Dtype, options: dict[str, Any]) -> openvino.CompiledModel:
    core = openvino.Core()
    if dtype == "int8":
        weights = core.read_model(model) if isinstance(model, Path) else model
        quantize_weights(weights)
        hint = _HINTS["bfloat16" if computes("bfloat16") else "float32"]
        options |= {"INFERENCE_PRECISION_HINT": hint, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}
        return core.compile_model(weights, "CPU", options)
    options["INFERENCE_PRECISION_HINT"] = _HINTS[dtype]
    if isinstance(model, Path):  # the compiled model is kept beside it, without the weights, which it shares
        options |= {"CACHE_DIR": str(model.parent), "CACHE_MODE": "OPTIMIZE_SIZE"}
    return core.compile_model(model, "CPU", options)
