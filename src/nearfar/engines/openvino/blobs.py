"""Compiled models in the cache: OpenVINO writes and reads them, and a few come back with other outputs.

So the outputs for the probes are stored with each, and compared when it is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nearfar.core.settings import Dtype
from nearfar.core.types import FloatArray
from nearfar.engines.common.cache_folder import is_sealed, seal
from nearfar.engines.common.precision import measure_loss
from nearfar.engines.openvino.compiled_model import CompiledModel

_log = logging.getLogger(__name__)


def compile_with_blob(
    folder: Path | None,
    dtype: Dtype,
    compile_model: Callable[[Path | None], CompiledModel],
    run_probes: Callable[[CompiledModel], FloatArray],
) -> tuple[CompiledModel, FloatArray]:
    """Compile the model of a cache entry, or read it compiled; return it and its outputs for the probes.

    ``compile_model`` is called with the folder of compiled models, or None. A damaged one is removed, and none is
    written again.
    """
    if folder is None or _marker(folder, dtype).exists():
        model = compile_model(None)
        return model, run_probes(model)
    stored = folder / f"compiled-{dtype}.npy"
    for blob in folder.glob("*.blob"):
        if not is_sealed(folder, folder.parents[1], blob.stem, [blob], folder.name.encode()):
            blob.unlink(missing_ok=True)
    try:
        model = compile_model(folder)
        outputs = run_probes(model)
        if not model.was_cached:
            np.save(stored, outputs, allow_pickle=False)
            for blob in folder.glob("*.blob"):
                seal(folder, folder.parents[1], blob.stem, [blob], folder.name.encode())
            return model, outputs
        if _is_same(np.load(stored, allow_pickle=False), outputs, dtype):
            return model, outputs
    except Exception as error:  # noqa: BLE001 — a damaged one may raise anything, or make numpy raise
        _log.debug("reading the compiled model failed: %s", error)
    _log.warning("%s: OpenVINO can't read back the compiled model: it will be compiled at every start", folder.name)
    for blob in folder.glob("*.blob"):
        blob.unlink(missing_ok=True)
    try:
        _marker(folder, dtype).touch()
    except OSError as error:
        _log.warning("can't write to %s (%s)", folder, error)
    model = compile_model(None)
    return model, run_probes(model)


def _marker(folder: Path, dtype: Dtype) -> Path:
    return folder / f"not-compiled-{dtype}"


def _is_same(stored: FloatArray, outputs: FloatArray, dtype: Dtype) -> bool:
    """Return whether the outputs are those of the model that was written, apart from rounding."""
    if stored.shape != outputs.shape:
        return False
    loss = measure_loss(stored, outputs)
    return loss.is_rounding if dtype == "float32" else loss.is_small
