"""A JSON file of a checkpoint → a struct, or one sentence that names the file. Knows nothing of what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from nearfar.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

_T = TypeVar("_T")


def read_json(file: Path, kind: type[_T]) -> _T:
    """Decode the file as ``kind``. Raises CheckpointError when it is missing, damaged or of another shape."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror}); download the model again") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: is damaged or not what it should be: {error}; download the model again, or mend the file"
        ) from error


def read_json_if_there(file: Path, kind: type[_T]) -> _T:
    """Decode the file as ``kind``, or give ``kind()``, its defaults, where there is no such file."""
    return read_json(file, kind) if file.is_file() else kind()
