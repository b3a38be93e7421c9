"""One batch through the engine: a result or an error for each row. Runs on a worker thread; no queue, no futures.

An exception of an engine doesn't name the row. So the batch runs again in halves, and those in halves, until the rows
that fail are alone and all others have their results.

That has to end when it isn't the rows: an engine that failed as often in a row as it takes to find two bad rows of the
batch is broken, and the rest fails without another attempt.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from nearfar.core.errors import DeviceOutOfMemory, EngineError, InternalError, ServingError
from nearfar.core.types import EngineMethod, FloatArray, Output, Representation
from nearfar.engines.base import Engine, EngineInfo, EngineOutput, RowsTooLarge
from nearfar.engines.common.oom import is_out_of_memory
from nearfar.models.tokenization.row import Row

_T = TypeVar("_T")

_MESSAGES: dict[type[ServingError], str] = {
    EngineError: "the model's result for text {text} isn't finite, or is all zeros",
    DeviceOutOfMemory: "text {text} has {tokens} tokens, for which the model's device doesn't have the memory",
}
_RAISED = "the engine failed on text {text}"


class Failure(NamedTuple):
    """Why a row has no result: the class of the error, and what the engine raised, if it raised."""

    kind: type[ServingError]
    cause: BaseException | None = None

    def error_for(self, text: int, tokens: int) -> ServingError:
        """Return the caller's error. It names the text by its index and contains nothing of what was raised."""
        message = _RAISED if self.cause and self.kind is EngineError else _MESSAGES[self.kind]
        error = self.kind(message.format(text=text, tokens=tokens))
        error.__cause__ = self.cause
        return error


class Forward:
    """The forward of one batch. After ``run``, every row's index is in ``results`` or in ``failures``."""

    def __init__(self, engine: Engine, method: EngineMethod, rows: Sequence[Row]) -> None:
        self._engine = engine
        self._method = method
        self._rows = rows
        self.results: dict[int, FloatArray | Representation] = {}
        self.failures: dict[int, Failure] = {}
        # The first error that the engine raised.
        self.raised: BaseException | None = None
        # How often the engine was called; another thread reads it to see progress.
        self.calls = 0
        self._failed_calls = 0  # in a row
        self._max_failed_calls = 2 * len(rows).bit_length()

    def run(self, indices: range | None = None) -> None:
        """Fill ``results`` and ``failures`` of all rows, or some; in halves where the engine raises. Never raises."""
        if indices is None:
            indices = range(len(self._rows))
        if self._failed_calls >= self._max_failed_calls:
            self.failures |= dict.fromkeys(indices, Failure(EngineError, self.raised))
            return
        try:
            self._call_engine(indices)
        except BaseException as error:  # noqa: BLE001 — also a panic of Rust code and SystemExit: this thread goes on
            failure = error
        else:
            self._failed_calls = 0
            return
        self.raised = self.raised or failure
        self._failed_calls += 1
        _clear_frames(failure)
        if len(indices) == 1:
            kind = DeviceOutOfMemory if is_out_of_memory(failure) else EngineError
            self.failures[indices[0]] = Failure(kind, failure)
            return
        half = len(indices) // 2
        self.run(indices[:half])
        self.run(indices[half:])

    def _call_engine(self, indices: range) -> None:
        """Call the engine once and validate its results."""
        rows = [*map(self._rows.__getitem__, indices)]
        too_large: Sequence[int] = ()
        self.calls += 1
        try:
            results = getattr(self._engine, self._method)(rows)
        except RowsTooLarge as error:
            results, too_large = error.results, error.indices
        results, invalid = validate(results, rows, self._method, self._engine.info)
        self.results |= zip(indices, results, strict=True)
        for at in invalid:
            self.failures[indices[at]] = Failure(EngineError)
        for at in too_large:
            self.failures[indices[at]] = Failure(DeviceOutOfMemory)


def _clear_frames(error: BaseException | None) -> None:
    """Free what the frames of a traceback refer to: the arrays of a forward that ran out of memory, for one."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def validate(
    results: EngineOutput, rows: Sequence[Row], method: EngineMethod, info: EngineInfo
) -> tuple[EngineOutput, list[int]]:
    """Return the results of ``rows``, and the indices of those that are invalid.

    Raises EngineError where their number or shape is not that of the rows.
    """
    count = len(rows)
    if method in {"represent", "hidden_states"}:
        if len(results) != count:
            raise EngineError(f"the engine returned {len(results)} results for {count} rows")
        if method == "represent":
            return results, [at for at, result in enumerate(results) if _is_invalid(result, info)]
        pairs = zip(results, rows, strict=True)
        return results, [at for at, (states, row) in enumerate(pairs) if _is_invalid_hidden(states, len(row.ids))]
    array: FloatArray = np.asarray(results, dtype=np.float32)
    labels = (info.labels,) if info.labels > 1 else ()
    expected = (count, info.dim) if method == "embed" else (count, *labels)
    if array.shape != expected:
        raise EngineError(f"the engine returned the shape {array.shape} instead of {expected}")
    return array, _invalid_rows(array, may_be_zero=method == "score")


def _invalid_rows(results: FloatArray, *, may_be_zero: bool) -> list[int]:
    """Return the indices of rows with an infinity or a NaN, or with nothing but zeros."""
    rows = results.reshape(len(results), -1)  # (B,) → (B, 1)
    invalid = ~np.isfinite(rows).all(axis=1)
    if not may_be_zero:
        invalid |= ~rows.any(axis=1)
    indices: list[int] = np.flatnonzero(invalid).tolist()
    return indices


def _is_invalid_hidden(states: FloatArray, length: int) -> bool:
    """Return whether hidden states (n, H) don't belong to a text of this length. One token's may be all zeros."""
    if states.ndim != 2 or len(states) != length:  # noqa: PLR2004 — (n, H)
        return True
    return bool(_invalid_rows(states[None], may_be_zero=False))


def _is_invalid(result: Representation, info: EngineInfo) -> bool:
    """Return whether an output is missing or invalid. A text may have no token vectors and no sparse weights."""
    outputs: dict[Output, FloatArray | None] = {
        "dense": result.dense,
        "multi_vector": result.multi_vector,
        "sparse": result.sparse.values if result.sparse else None,
    }
    required = [outputs[output] for output in info.outputs]
    if not all(output is not None and np.isfinite(output).all() for output in required):
        return True
    if result.dense is not None and (result.dense.shape != (info.dim,) or not result.dense.any()):
        return True
    vectors = result.multi_vector
    return vectors is not None and len(vectors) > 0 and bool(_invalid_rows(vectors, may_be_zero=False))


def contained(call: Callable[[], _T]) -> _T:
    """Call, and raise InternalError in place of what would end the event loop or hang the awaiting task.

    A panic of Rust code and SystemExit aren't Exceptions and would end the loop. StopIteration can't be set on a
    future, so the task that awaits it would wait forever.
    """
    try:
        return call()
    except StopIteration as error:
        raise InternalError("a call ended with StopIteration") from error
    except Exception:
        raise
    except BaseException as error:
        raise InternalError(f"a call ended with {type(error).__name__}") from error
