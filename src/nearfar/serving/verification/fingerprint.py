"""Which folders were compared already: a file for each state of a folder's files, in the cache folder.

Small files are hashed as a whole; weights by their size, their header, and blocks spread over them.
"""

from __future__ import annotations

import hashlib
import logging
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from nearfar.engines.common.cache_folder import is_sealed, read_small, seal

_MAX_BYTES, _ABOUT = 2**20, b"verified"
_SMALL = 32 * 2**20
_BLOCK, _BLOCKS = 2**16, 64
_SUFFIXES = {".json", ".safetensors", ".txt", ".model", ".jinja"}
_LIBRARIES = ("nearfar", "sentence-transformers", "transformers", "torch", "openvino", "mlx")
_log = logging.getLogger(__name__)


class VerifiedFolders:
    """The results of comparisons of one folder and one recipe, by engine and precision."""

    def __init__(self, cache_dir: Path | None, folder: Path, recipe: object) -> None:
        self._cache_dir = cache_dir
        self._file = cache_dir and cache_dir / "verified" / f"{_fingerprint(folder, recipe)}.json"

    def read(self) -> dict[str, str]:
        """Return the results; none where the file is missing, damaged or not sealed, or there is no cache folder."""
        if self._file is None or self._cache_dir is None:
            return {}
        try:
            content = read_small(self._file, _MAX_BYTES)
            if not is_sealed(self._file.parent, self._cache_dir, self._file.stem, [self._file], _ABOUT):
                return {}
            return msgspec.json.decode(content, type=dict[str, str])
        except (OSError, ValueError):
            return {}

    def add(self, key: str, result: str) -> None:
        """Write one more result. A cache that can't be written means another comparison at the next start."""
        if self._file is None or self._cache_dir is None:
            return
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished = self._file.with_suffix(f".{hashlib.sha256(key.encode()).hexdigest()[:8]}")
            unfinished.write_bytes(msgspec.json.encode(self.read() | {key: result}))
            unfinished.replace(self._file)
            seal(self._file.parent, self._cache_dir, self._file.stem, [self._file], _ABOUT)
        except OSError as error:
            _log.warning("can't remember what was verified (%s): it will be verified at every start", error)


def _fingerprint(folder: Path, recipe: object) -> str:
    digest = hashlib.sha256(f"{[_version(name) for name in _LIBRARIES]}{recipe!r}".encode())
    for file in sorted(file for file in folder.rglob("*") if file.suffix in _SUFFIXES and file.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder)}:{size}:".encode())
        with file.open("rb") as opened:
            if size <= _SMALL and file.suffix != ".safetensors":
                digest.update(opened.read())
                continue
            for at in range(_BLOCKS):
                opened.seek(at * max(size - _BLOCK, 0) // max(_BLOCKS - 1, 1))
                digest.update(opened.read(_BLOCK))
    return digest.hexdigest()[:32]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
