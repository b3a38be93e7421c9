"""Converted models in the cache folder: ``model.xml``, ``model.bin``, and torch's outputs for the probes.

An entry's name is a hash of everything that the conversion depends on, and an entry is written as a whole or not at
all. Its seal binds its files to the content of the weights. Writing one removes older entries for the same checkpoint.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import openvino

from nearfar.core.errors import EngineUnavailable
from nearfar.core.types import FloatArray
from nearfar.engines.base import OpenRequest
from nearfar.engines.common.cache_folder import is_sealed, seal

_LAYOUT = 6  # to be raised whenever this package converts differently
_MODEL, _EXACT, _REFUSED = "model.xml", "exact.npy", "refused.txt"
_SEAL = "model"
_DONT_NEED = 4  # MADV_DONTNEED
_LIBRARIES = ("openvino", "torch", "transformers")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConvertedModel:
    """A converted model, and torch's float32 outputs for the probes, (N, D) or (N,)."""

    model: Path | openvino.Model  # the model itself where the cache couldn't be written
    exact: FloatArray
    # Torch's for ``long_row`` where this process has converted the model, None where the cache had it.
    exact_of_long: FloatArray | None = None

    @property
    def is_new(self) -> bool:
        """Return whether this process has converted the model."""
        return self.exact_of_long is not None

    @property
    def folder(self) -> Path | None:
        """Return the cache entry's folder."""
        return self.model.parent if isinstance(self.model, Path) else None


def load_or_convert(request: OpenRequest) -> ConvertedModel:
    """Load the model from the cache, or convert the checkpoint and cache it.

    Raises CheckpointError and EngineUnavailable as ``conversion.convert`` does.
    """
    folder = _entry_folder(request)
    if folder and (cached := _load(folder, request)):
        return cached
    from nearfar.engines.openvino.conversion import convert  # imports torch and transformers, 4 s

    _log.info("converting and compiling %s for OpenVINO, once", request.folder.name)
    model, exact, exact_of_long = convert(request)
    if folder:
        try:
            _save(folder, model, exact)
            seal(folder, folder.parents[1], _SEAL, _sealed_files(folder, request), _cache_key(request))
        except OSError as error:
            _log.warning("can't cache %s (%s): it will be converted at every start", request.folder.name, error)
        else:
            return ConvertedModel(model=folder / _MODEL, exact=exact, exact_of_long=exact_of_long)
    return ConvertedModel(model=_written_and_read(model), exact=exact, exact_of_long=exact_of_long)


def _written_and_read(model: openvino.Model) -> openvino.Model:
    """Return the model as read from a file, which is removed again: only then its marks of precision are followed."""
    with tempfile.TemporaryDirectory(prefix="nearfar-", ignore_cleanup_errors=True) as folder:
        try:
            openvino.save_model(model, Path(folder) / _MODEL, compress_to_fp16=False)
        except RuntimeError as error:  # the disk is full
            _log.warning("heads compute in the precision of the model: %s", str(error).strip().splitlines()[-1])
            return model
        return openvino.Core().read_model(Path(folder) / _MODEL)


def remove_damaged(entry: ConvertedModel) -> None:
    """Remove an entry that turned out to be damaged."""
    if entry.folder:
        _log.warning("cache entry %s is damaged and will be converted again", entry.folder)
        shutil.rmtree(entry.folder, ignore_errors=True)


def refuse_later(entry: ConvertedModel, reason: Exception) -> None:
    """Keep the reason in place of a model with wrong numbers, so that it isn't converted at every start."""
    if entry.folder:
        (entry.folder / _REFUSED).write_text(str(reason), encoding="utf-8")
        for file in (entry.folder / _MODEL, (entry.folder / _MODEL).with_suffix(".bin")):
            file.unlink(missing_ok=True)


def release_pages(entry: ConvertedModel) -> None:
    """Drop the pages of the mapped weights from this process's memory, on Linux; a page needed again is mapped again.

    A compiled model has copies of the weights of linear layers. So of their file it only reads embeddings.
    """
    maps = Path("/proc/self/maps")
    if not entry.folder or not maps.exists():
        return
    library = ctypes.CDLL(None)
    for line in maps.read_text(encoding="utf-8").splitlines():
        addresses, permissions, *_ = line.split(maxsplit=2)
        if line.endswith(str((entry.folder / _MODEL).with_suffix(".bin"))) and "w" not in permissions:
            start, end = (int(address, 16) for address in addresses.split("-"))
            library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)


def _entry_folder(request: OpenRequest) -> Path | None:
    if request.cache_dir is None:
        return None
    name = re.sub(r"[^A-Za-z0-9.-]", "_", request.folder.name)[:48]
    source = f"{name}-{_sha256(str(request.folder).encode())[:8]}"
    return request.cache_dir / "openvino" / f"{source}-{_sha256(_cache_key(request))[:16]}"


def _cache_key(request: OpenRequest) -> bytes:
    """Serialize everything that the numbers depend on: the files, the recipe, the libraries, the probes."""
    recipe = request.recipe
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in _source_files(request)]
    return msgspec.json.encode(
        {
            "layout": _LAYOUT,
            "libraries": [version(name) for name in _LIBRARIES],
            "checkpoint": request.revision or stamps,
            "recipe": [recipe.task, recipe.pooling, recipe.normalize, recipe.pad_token_id, recipe.type_ids],
            "options": [recipe.truncate_dim, recipe.config_options, recipe.rounds_to],
            "answer": recipe.llm_reranker and recipe.llm_reranker.answer_tokens,
            "heads": [str(head) for head in (recipe.layers, recipe.multi_vector, recipe.sparse)],
            "probes": [row.ids for row in request.probes],
        }
    )


def _source_files(request: OpenRequest) -> list[Path]:
    own = [path for path in request.folder.rglob("*") if path.suffix in {".json", ".safetensors"}]
    return sorted({*own, *(layer.file for layer in request.recipe.weighted_layers)})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sealed_files(folder: Path, request: OpenRequest) -> list[Path]:
    """Return the files of the entry, and the weights that it was converted from."""
    model = folder / _MODEL
    return [model, model.with_suffix(".bin"), folder / _EXACT, *_source_files(request)]


def _load(folder: Path, request: OpenRequest) -> ConvertedModel | None:
    if (folder / _REFUSED).is_file():
        raise EngineUnavailable((folder / _REFUSED).read_text(encoding="utf-8"))
    if not is_sealed(folder, folder.parents[1], _SEAL, _sealed_files(folder, request), _cache_key(request)):
        if folder.exists():
            _log.warning("cache entry %s isn't of these weights, or was changed; it is converted again", folder)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    try:
        exact = np.load(folder / _EXACT, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing or damaged
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return ConvertedModel(model=folder / _MODEL, exact=exact)


def _save(folder: Path, model: openvino.Model, exact: FloatArray) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
        new = Path(temporary) / "entry"
        new.mkdir()
        try:
            openvino.save_model(model, new / _MODEL, compress_to_fp16=False)
        except RuntimeError as error:  # what openvino raises when the disk is full
            raise OSError(str(error).strip().splitlines()[-1]) from error
        np.save(new / _EXACT, exact, allow_pickle=False)
        source = folder.name.rpartition("-")[0]
        for older in folder.parent.glob(f"{source}-*"):
            if older != folder:
                shutil.rmtree(older, ignore_errors=True)
        try:
            new.replace(folder)
        except OSError:
            if not (folder / _EXACT).is_file():  # otherwise another process has written the same entry meanwhile
                raise
