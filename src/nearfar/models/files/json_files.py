"""Reads a checkpoint's JSON files into structs. The error names the file."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from nearfar.core.errors import CheckpointError

_T = TypeVar("_T")
GIT_LFS = b"version https://git-lfs"  # the start of what git clone leaves without the LFS extension
_NOT_FINITE = re.compile(rb"\b(NaN|Infinity)\b")
MAX_NAME_BYTES = 255  # of a file, on Linux and macOS
MAX_BYTES = 200_000_000  # tokenizers reach 35 million, the index of a model of 671 billion parameters 9 million


def read_json(file: Path, kind: type[_T]) -> _T:
    """Decode the file as ``kind``. Raises CheckpointError if it is missing, damaged, too large or of another shape."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)  # st_size would miss devices, which have none
        if len(content) > MAX_BYTES:
            raise CheckpointError(f"{file}: has over {MAX_BYTES:,} bytes, too many for such a file; download it again")
        if content.startswith(GIT_LFS):
            raise CheckpointError(f"{file}: is a Git LFS pointer, not the file; run git lfs pull")
        return msgspec.json.decode(content, type=kind)
    except OSError as error:
        raise unreadable(file, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if _NOT_FINITE.search(content) and not isinstance(error, msgspec.ValidationError):
            return _read_not_finite(file, content, kind)
        raise _damaged(file, error) from error


def _read_not_finite(file: Path, content: bytes, kind: type[_T]) -> _T:
    """Decode content with NaN or Infinity, which aren't JSON, but which Python and so transformers write and read."""
    try:
        decoded = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise _damaged(file, error) from error
    return convert(file, decoded, kind)


def convert(file: Path, content: object, kind: type[_T]) -> _T:
    """Convert what was read from the file to ``kind``. Raises CheckpointError if it has another shape."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise _damaged(file, error) from error


def read_optional_json(file: Path, kind: type[_T]) -> _T:
    """Decode the file as ``kind``; return ``kind()``, its defaults, if the file doesn't exist."""
    return read_json(file, kind) if file.is_file() else kind()


def unreadable(file: Path, error: OSError) -> CheckpointError:
    """Return the error for a file that the system doesn't open or read."""
    is_denied = error.errno in {errno.EACCES, errno.EPERM}
    way_out = "let this user read it" if is_denied else "download the model again"
    return CheckpointError(f"{file}: can't be read ({error.strerror or error}); {way_out}")


def _damaged(file: Path, error: Exception) -> CheckpointError:
    if isinstance(error, msgspec.ValidationError):  # another download would be the same
        return CheckpointError(f"{file}: has unexpected content: {error}; correct the file, or use another model")
    return CheckpointError(f"{file}: is damaged: {error}; download the model again, or correct the file")
