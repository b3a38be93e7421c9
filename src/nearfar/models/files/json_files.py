"""A JSON file of a checkpoint → a struct, or one sentence that names the file. Knows nothing of what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from nearfar.core.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

_T = TypeVar("_T")
MOST = 200_000_000  # bytes: tokenizers have 35 million, and the index of a model of 671 billion weights 9 million


def read_json(file: Path, kind: type[_T]) -> _T:
    """Decode the file as ``kind``. Raises CheckpointError when it is missing, damaged, huge or of another shape."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST + 1)  # a device may have no size, and no end
        if len(content) > MOST:
            raise CheckpointError(f"{file}: is over {MOST:,} bytes, and no such file needs that; download it again")
        return msgspec.json.decode(content, type=kind)
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror}); download the model again") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: is damaged or not what it should be: {error}; download the model again, or mend the file"
        ) from error


def read_optional_json(file: Path, kind: type[_T]) -> _T:
    """Decode the file as ``kind``, or give ``kind()``, its defaults, where there is no such file."""
    return read_json(file, kind) if file.is_file() else kind()
