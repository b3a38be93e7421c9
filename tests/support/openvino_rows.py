"""Runs rows alone on the OpenVINO engine until it has compiled models for them, and compares their numbers."""

from __future__ import annotations

from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np

from nearfar.engines.common.precision import flatten_outputs
from nearfar.engines.openvino.compiled_model import _ROWS_BEFORE, ANY_LENGTH, ROW_STEP, CompiledModel
from nearfar.engines.openvino.engine import OpenVinoEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.types import FloatArray
    from nearfar.engines.base import Engine
    from nearfar.models.tokenization.row import Row


def compile_for_single_rows(engine: Engine, rows: Sequence[Row]) -> dict[int, CompiledModel]:
    """Run rows of both kinds of length alone, as often as it takes; return the models that were compiled."""
    assert isinstance(engine, OpenVinoEngine)
    assert engine._single_row
    for is_short in (True, False):
        chosen = [row for row in rows if (len(row.ids) <= ROW_STEP) == is_short]
        for row in islice(cycle(chosen), _ROWS_BEFORE):
            engine.represent([row]) if engine.info.outputs else engine.embed([row])
    engine._compiler.submit(int).result()  # behind what compiles
    compiled = engine._single_row._compiled
    assert {ROW_STEP, ANY_LENGTH} == compiled.keys()
    return compiled


def numbers_alone(engine: Engine, rows: Sequence[Row]) -> list[tuple[FloatArray, FloatArray]]:
    """Return each row's outputs from the usual model, and from the one for single rows."""
    single = compile_for_single_rows(engine, rows)
    assert isinstance(engine, OpenVinoEngine)
    models = [(engine._model, single[ROW_STEP if len(row.ids) <= ROW_STEP else ANY_LENGTH]) for row in rows]
    return [
        (flatten_outputs(usual.run([row]), [row]), flatten_outputs(alone.run([row]), [row]))
        for row, (usual, alone) in zip(rows, models, strict=True)
    ]


def assert_same_alone(engine: Engine, rows: Sequence[Row], atol: float = 1e-6) -> None:
    """Compare every row's outputs."""
    for expected, found in numbers_alone(engine, rows):
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
