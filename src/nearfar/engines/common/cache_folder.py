"""The cache folder: whether other users may write to it, and the seals of what an engine has written there.

A seal is a MAC of files. Its key is in the folder, readable by its owner alone.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import stat
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

_GROUP_AND_OTHERS, _WRITERS = stat.S_IRWXG | stat.S_IRWXO, stat.S_IWGRP | stat.S_IWOTH
_OWNER = 0o700
_KEY, _KEY_BYTES, _MAC_BYTES = ".key", 32, 64
_log = logging.getLogger(__name__)


def trusted_cache(folder: Path | None) -> Path | None:
    """Return the folder, or None with a warning if other users may write to it, in it, or to one above it.

    Creates it, for its owner only, so that no other user can do so later.
    """
    if folder is None:
        return None
    _create(folder.absolute())
    open_one = _find_open(folder.absolute())
    if open_one is None:
        return folder
    _log.warning(
        "cache_dir: other users may write to %s, so %s isn't used, and models are converted at every start; run: "
        "chmod go-w %s, and remove what is in %s, or choose another cache_dir",
        open_one,
        folder,
        open_one,
        folder,
    )
    return None


def _create(folder: Path) -> None:
    for place in (*reversed(folder.parents), folder):
        if not place.exists():
            with suppress(OSError):  # the disk can't be written, or another process was faster
                place.mkdir(mode=_OWNER)


def _find_open(folder: Path) -> Path | None:
    """Return the folder on the path, or in the cache, that others may write to; None if there is none."""
    inside: list[Path] = []
    with suppress(OSError):
        inside = [child for child in folder.iterdir() if child.is_dir()]
    while not folder.exists():
        folder = folder.parent
    trusted = _trusted_users()
    checked = (_first_open(path, trusted) for path in (*_real_paths(folder), *inside))
    return next(filter(None, checked), None)


def _trusted_users() -> set[int]:
    """Return the ids of root and of this process."""
    with tempfile.NamedTemporaryFile(prefix="nearfar-") as own:
        return {0, Path(own.name).stat().st_uid}


def _real_paths(folder: Path) -> Iterator[Path]:
    """Yield the real path of a folder, and of each symbolic link that leads to it."""
    yield folder.resolve()
    for place in (*reversed(folder.parents), folder):
        if place.is_symlink():
            yield place.parent.resolve() / place.name
            yield from _real_paths(place.parent / place.readlink())


def _first_open(path: Path, trusted: set[int]) -> Path | None:
    """Return the first folder that others may write to; None if there is none, or others can't reach it."""
    for place in (*reversed(path.parents), path):
        status = place.lstat()
        is_own = status.st_uid in trusted
        if is_own and not status.st_mode & _GROUP_AND_OTHERS:
            return None
        is_link = stat.S_ISLNK(status.st_mode)
        is_sticky = place != path and status.st_mode & stat.S_ISVTX  # others can't rename what isn't theirs
        if not is_own or (status.st_mode & _WRITERS and not is_sticky and not is_link):
            return place
    return None


def seal(folder: Path, cache_dir: Path, name: str, files: Sequence[Path], about: bytes) -> None:
    """Write the seal of files into the folder. Raises OSError."""
    (folder / f"{name}.mac").write_text(_compute_mac(cache_dir, files, about), encoding="ascii")


def is_sealed(folder: Path, cache_dir: Path, name: str, files: Sequence[Path], about: bytes) -> bool:
    """Return whether the files are those that were sealed, and were sealed for the same."""
    try:
        expected = read_small(folder / f"{name}.mac", _MAC_BYTES).decode("ascii")
        return hmac.compare_digest(expected, _compute_mac(cache_dir, files, about))
    except (OSError, ValueError, TypeError):
        return False


def _compute_mac(cache_dir: Path, files: Sequence[Path], about: bytes) -> str:
    with ThreadPoolExecutor(4) as threads:  # hashing releases the GIL
        digests = [*threads.map(_digest, files)]
    names = [file.name.encode() for file in files]
    message = b"\0".join([hashlib.sha256(about).digest(), *names, *digests])
    return hmac.new(_read_key(cache_dir), message, hashlib.sha256).hexdigest()


def read_small(file: Path, limit: int) -> bytes:
    """Return the content of a file of the cache. Raises OSError, and ValueError for pipes, devices and large files."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        raise ValueError(f"{file}: is not a regular file of at most {limit:,} bytes")
    return file.read_bytes()


def _digest(file: Path) -> bytes:
    if not file.is_file():
        raise ValueError(f"{file}: is not a regular file")
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def _read_key(cache_dir: Path) -> bytes:
    """Return the key, which the first use creates."""
    file = cache_dir / _KEY
    try:
        file.touch(mode=0o600, exist_ok=False)
        file.write_bytes(secrets.token_bytes(_KEY_BYTES))
    except FileExistsError:
        pass
    status = file.lstat()
    is_own = stat.S_ISREG(status.st_mode) and status.st_uid in _trusted_users()
    if not is_own or status.st_size != _KEY_BYTES or status.st_mode & _GROUP_AND_OTHERS:
        file.unlink(missing_ok=True)  # nothing that was sealed with it counts
        return secrets.token_bytes(_KEY_BYTES)
    return file.read_bytes()
