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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_GROUP_AND_OTHERS, _WRITERS = stat.S_IRWXG | stat.S_IRWXO, stat.S_IWGRP | stat.S_IWOTH
_KEY, _KEY_BYTES = ".key", 32
_log = logging.getLogger(__name__)


def trusted_cache(folder: Path | None) -> Path | None:
    """Return the folder, or None with a warning if other users may write to it, or to one above it."""
    if folder is None or (open_one := _find_open(folder.absolute())) is None:
        return folder
    _log.warning(
        "cache_dir: other users may write to %s, so %s isn't used, and models are converted at every start; run: "
        "chmod go-w %s, or choose another cache_dir",
        open_one,
        folder,
        open_one,
    )
    return None


def _find_open(folder: Path) -> Path | None:
    """Return the folder on the path that others may write to; None if there is none, or they can't reach it."""
    with tempfile.NamedTemporaryFile(prefix="nearfar-") as own:
        trusted = {0, Path(own.name).stat().st_uid}
    for place in (*reversed(folder.parents), folder):
        if not place.exists():
            return None
        status = place.stat()
        if status.st_uid in trusted and not status.st_mode & _GROUP_AND_OTHERS:
            return None
        is_sticky = place != folder and status.st_mode & stat.S_ISVTX  # others can't rename what isn't theirs
        if status.st_uid not in trusted or (status.st_mode & _WRITERS and not is_sticky):
            return place
    return None


def seal(folder: Path, cache_dir: Path, name: str, files: Sequence[Path], about: bytes) -> None:
    """Write the seal of files into the folder. Raises OSError."""
    (folder / f"{name}.mac").write_text(_compute_mac(cache_dir, files, about), encoding="ascii")


def is_sealed(folder: Path, cache_dir: Path, name: str, files: Sequence[Path], about: bytes) -> bool:
    """Return whether the files are those that were sealed, and were sealed for the same."""
    try:
        expected = (folder / f"{name}.mac").read_text(encoding="ascii")
        return hmac.compare_digest(expected, _compute_mac(cache_dir, files, about))
    except (OSError, ValueError, TypeError):
        return False


def _compute_mac(cache_dir: Path, files: Sequence[Path], about: bytes) -> str:
    with ThreadPoolExecutor(4) as threads:  # hashing releases the GIL
        digests = [*threads.map(_digest, files)]
    names = [file.name.encode() for file in files]
    message = b"\0".join([hashlib.sha256(about).digest(), *names, *digests])
    return hmac.new(_read_key(cache_dir), message, hashlib.sha256).hexdigest()


def _digest(file: Path) -> bytes:
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
    key = file.read_bytes()
    if len(key) != _KEY_BYTES or file.stat().st_mode & _GROUP_AND_OTHERS:
        file.unlink(missing_ok=True)  # nothing that was sealed with it counts
        return secrets.token_bytes(_KEY_BYTES)
    return key
