"""Converted models in the cache, one folder each: ``model.xml``, ``model.bin``, and torch's answers to the probes.

A folder's name tells all that the conversion depends on, and a folder appears whole or not at all. Entries that
another version made of the same files are removed when a new one is written.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import openvino

if TYPE_CHECKING:
    from nearfar.core.types import FloatArray
    from nearfar.engines.base import OpenRequest

_LAYOUT = 3  # to be raised whenever this package converts differently
_MODEL, _EXACT = "model.xml", "exact.npy"
_LIBRARIES = ("openvino", "torch", "transformers")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A converted model: its file, or the model itself where the cache couldn't be written.

    ``exact`` is what torch answers to the probes in float32, (N, D) or (N,).
    """

    model: Path | openvino.Model
    exact: FloatArray

    @property
    def folder(self) -> Path | None:
        """Give the folder it is kept in."""
        return self.model.parent if isinstance(self.model, Path) else None


def load_or_convert(request: OpenRequest) -> Converted:
    """Take the model from the cache, or convert the checkpoint and put it there.

    Raises CheckpointError and EngineUnavailable as ``conversion.convert`` does.
    """
    folder = _folder(request)
    if folder and (kept := _load(folder)):
        return kept
    from nearfar.engines.openvino.conversion import convert  # imports torch and transformers, 4 s

    _log.info("converting %s for OpenVINO, once", request.folder.name)
    model, exact = convert(request)
    if folder:
        try:
            _save(folder, model, exact)
        except OSError as error:
            _log.warning("%s can't be kept (%s): it will be converted at every start", request.folder.name, error)
        else:
            return Converted(model=folder / _MODEL, exact=exact)
    return Converted(model=model, exact=exact)


def forget(kept: Converted) -> None:
    """Remove an entry that turned out to be damaged."""
    if kept.folder:
        _log.warning("%s is damaged and will be made anew", kept.folder)
        shutil.rmtree(kept.folder, ignore_errors=True)


def _folder(request: OpenRequest) -> Path | None:
    if request.cache_dir is None:
        return None
    return request.cache_dir / "openvino" / f"{_source(request)}-{_digest(_ingredients(request))[:16]}"


def _source(request: OpenRequest) -> str:
    return f"{re.sub(r'[^A-Za-z0-9.-]', '_', request.folder.name)[:48]}-{_digest(str(request.folder).encode())[:8]}"


def _ingredients(request: OpenRequest) -> bytes:
    """Write down all that the numbers depend on: the files, the recipe, the libraries, the probes."""
    recipe = request.recipe
    files = sorted(path for path in request.folder.rglob("*") if path.suffix in {".json", ".safetensors"})
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return msgspec.json.encode(
        {
            "layout": _LAYOUT,
            "libraries": [version(name) for name in _LIBRARIES],
            "checkpoint": request.revision or stamps,
            "recipe": [recipe.task, recipe.pooling, recipe.normalize, recipe.pad_token_id, recipe.type_ids],
            "answer": recipe.llm_reranker and recipe.llm_reranker.answer_tokens,
            "heads": [str(head) for head in (recipe.dense, recipe.multi_vector, recipe.sparse)],
            "probes": [row.ids for row in request.probes],
        }
    )


def _digest(what: bytes) -> str:
    return hashlib.sha256(what).hexdigest()


def _load(folder: Path) -> Converted | None:
    try:
        exact = np.load(folder / _EXACT, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or damaged
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Converted(model=folder / _MODEL, exact=exact)


def _save(folder: Path, model: openvino.Model, exact: FloatArray) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as made:
        new = Path(made) / "entry"
        new.mkdir()
        try:
            openvino.save_model(model, new / _MODEL, compress_to_fp16=False)
        except RuntimeError as error:  # openvino's word for a full disk
            raise OSError(str(error).strip().splitlines()[-1]) from error
        np.save(new / _EXACT, exact, allow_pickle=False)
        source = folder.name.rpartition("-")[0]
        for older in folder.parent.glob(f"{source}-*"):
            if older != folder:
                shutil.rmtree(older, ignore_errors=True)
        try:
            new.replace(folder)
        except OSError:
            if not (folder / _EXACT).is_file():  # else another process has made the same meanwhile
                raise
