"""Keeps the texts of a batch from changing each other's numbers, whatever their architecture does with padding.

Some architectures ignore the attention mask, or depend on the longest text of a batch. That is measured on the open
engine, and such a model runs rows of equal lengths together, or one row at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from nearfar.core.errors import EngineUnavailable
from nearfar.core.types import Batching, EngineMethod, FloatArray, Representation
from nearfar.engines.base import Engine, EngineInfo, EngineOutput, OpenRequest, RowsTooLarge
from nearfar.engines.common.padding import split_by_length
from nearfar.models.tokenization.row import Row

_SHORT, _LONG, _LESS_LONG = 2, 96, 24  # tokens of the compared rows; a long one exceeds the usual attention windows
_SLOW_S = 0.05  # of a forward of the short row: from here on the long row is less long
_TOLERANCE = {"float32": 1e-5}
_HALF_TOLERANCE = 0.05  # rounding reaches 0.03 in int8
_log = logging.getLogger(__name__)


def ensure_batch_invariance(engine: Engine, request: OpenRequest, method: EngineMethod) -> Engine:
    """Return the engine, or one that runs its rows apart where they change each other's numbers.

    Raises EngineUnavailable where a text doesn't get the same numbers twice.
    """
    batching = engine.info.batching
    if batching is None and request.probes:
        batching = _find_batching(engine, request, method)
    return engine if batching is None or batching == "mixed lengths" else SplitBatchEngine(engine, batching)


def _find_batching(engine: Engine, request: OpenRequest, method: EngineMethod) -> Batching:
    """Compare a short and a long row, each alone, with both in one batch; where they differ, also two short ones."""
    size = request.recipe.sparse.size if request.recipe.sparse else 0

    def run(*rows: Row) -> list[FloatArray]:
        return [_numbers(result, size) for result in getattr(engine, method)(list(rows))]

    longest = max(request.probes, key=lambda row: len(row.ids))
    middle = len(longest.ids) // 2
    short, other = longest.cut(slice(_SHORT)), longest.cut(slice(middle, middle + _SHORT))
    try:
        started = time.perf_counter()
        alone = run(short)
        is_slow = time.perf_counter() - started > _SLOW_S
        long = longest.cut(slice(_LESS_LONG if is_slow else _LONG))
        alone += run(long)
    except Exception:  # noqa: BLE001 — the lane's own probe decides whether the engine works
        return "mixed lengths"
    allowed = _TOLERANCE.get(engine.info.dtype, _HALF_TOLERANCE)
    change = _change(lambda: run(short, long), alone)
    if _change(lambda: run(short), alone[:1]) > allowed:
        raise EngineUnavailable(
            f"{request.folder}: {request.recipe.architecture} returns other numbers for the same text each time; "
            "serve another model"
        )
    if change <= allowed:
        return "mixed lengths"
    equal_lengths = _change(lambda: run(short, other), [*run(short), *run(other)]) <= allowed
    batching: Batching = "equal lengths" if equal_lengths else "one text"
    _log.warning(
        "%s: in one batch a text changes another's numbers by %.1g with %s, so batches are of %s",
        request.folder.name,
        change,
        request.recipe.architecture,
        batching,
    )
    return batching


def _numbers(result: Any, size: int) -> FloatArray:
    """Return one row's result as one array."""
    if not isinstance(result, Representation):
        return np.atleast_1d(np.asarray(result, dtype=np.float32)).ravel()
    parts = [part.ravel() for part in (result.dense, result.multi_vector) if part is not None]
    if result.sparse is not None:
        dense = np.zeros(size, dtype=np.float32)
        dense[result.sparse.indices] = result.sparse.values
        parts.append(dense)
    return np.concatenate(parts)


def _change(run: Callable[[], list[FloatArray]], expected: list[FloatArray]) -> float:
    """Return the largest difference from a row's ``expected`` numbers, relative to their norm or to 1."""
    try:
        found = run()
    except Exception:  # noqa: BLE001 — rows that fail together have to run apart
        return float("inf")
    changes = [_relative(one - other, other) for one, other in zip(found, expected, strict=True)]
    return max(change if np.isfinite(change) else float("inf") for change in changes)


def _relative(difference: FloatArray, expected: FloatArray) -> float:
    scale = float(np.linalg.norm(expected))
    return float(np.linalg.norm(difference)) / max(scale, 1.0 if expected.size == 1 else 1e-12)


class SplitBatchEngine:
    """Runs another engine on rows of equal lengths, or on one row at a time."""

    def __init__(self, engine: Engine, batching: Batching) -> None:
        self._engine = engine
        self._batching = batching
        self.info: EngineInfo = msgspec.structs.replace(
            engine.info,
            batching=batching,
            batch_tokens=1 if batching == "one text" else engine.info.batch_tokens,
            padded=True,
            max_padding=0,
            shares_prefixes=False,
        )
        if memory := getattr(engine, "memory", None):
            self.memory = memory

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Run ``embed`` on each part."""
        return np.stack(self._run("embed", batch))

    def score(self, batch: Sequence[Row]) -> FloatArray:
        """Run ``score`` on each part."""
        return np.stack(self._run("score", batch))

    def represent(self, batch: Sequence[Row]) -> list[Representation]:
        """Run ``represent`` on each part."""
        return self._run("represent", batch)

    def hidden_states(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Run ``hidden_states`` on each part."""
        return self._run("hidden_states", batch)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _run(self, method: EngineMethod, batch: Sequence[Row]) -> list[Any]:
        results: list[Any] = [None] * len(batch)
        too_large: list[int] = []
        for indices, rows in self._parts(batch):
            try:
                found: EngineOutput = getattr(self._engine, method)(rows)
            except RowsTooLarge as error:
                found = error.results
                too_large += [indices[at] for at in error.indices]
            for index, result in zip(indices, found, strict=True):
                results[index] = result
        if too_large:
            raise RowsTooLarge(results, too_large)
        return results

    def _parts(self, batch: Sequence[Row]) -> Iterator[tuple[list[int], Sequence[Row]]]:
        if self._batching == "equal lengths":
            return split_by_length(batch)
        return (([at], [row]) for at, row in enumerate(batch))
