"""Downloaded files → what the hub announced or not. The cache names each file's content by the hash that came with it.

huggingface_hub itself compares sizes alone: a byte that changed on the way, or on a bad disk, would be served.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PART = 2**20  # bytes


def corrupt_files(folder: Path) -> Iterator[Path]:
    """List the files of a snapshot whose content isn't what its name in the cache says."""
    for file in sorted(folder.rglob("*")):
        content = file.resolve()
        if file.is_file() and not _is_as_named(content):
            yield file


def _is_as_named(content: Path) -> bool:
    """Compare with a SHA-256, as large files have, or git's SHA-1 of the others; a mirror may name them otherwise."""
    if re.fullmatch("[0-9a-f]{64}", content.name):
        return content.name == _digest(content, hashlib.sha256())
    if re.fullmatch("[0-9a-f]{40}", content.name):
        start = f"blob {content.stat().st_size}\0".encode()
        plain, git = hashlib.sha1(usedforsecurity=False), hashlib.sha1(start, usedforsecurity=False)
        return content.name in {_digest(content, git), _digest(content, plain)}
    return True


def _digest(file: Path, digest: hashlib._Hash) -> str:
    with file.open("rb") as opened:
        while part := opened.read(_PART):
            digest.update(part)
    return digest.hexdigest()
