"""Models for a row that runs alone. They compute it on all threads, where the usual model uses those of one stream."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor

import openvino

from nearfar.engines.openvino.compiled_model import ANY_LENGTH, ROW_STEP, CompiledModel
from nearfar.engines.openvino.quantization import linear_weights

# Two threads finish a longer row as much sooner, but another request that arrives meanwhile has to share them longer.
_LONGEST = 512
# So many rows have to run alone before a model is compiled for their length. A start runs fewer.
_ROWS_BEFORE = 16
# The most memory that linear layers may take, in float32. Each model compiled here takes that again: 0.8 to 1.2 times
# as much in float32, and 0.5 to 0.8 times in bfloat16.
_MAX_WEIGHT_BYTES = 128 * 2**20

_log = logging.getLogger(__name__)


def is_small(model: openvino.Model) -> bool:
    """Return whether the model may be compiled more than once, by the memory that this takes."""
    weights = map(linear_weights, model.get_ops())
    return sum(matrix.nbytes for matrix in weights if matrix is not None) <= _MAX_WEIGHT_BYTES


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
