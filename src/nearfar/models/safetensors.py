"""The head of a safetensors file: which arrays it has and their shapes. Reads no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from nearfar.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 100_000_000  # what the format allows for the head


class _Array(Struct):
    shape: list[int] = []


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Give the shape of each array by its name. Raises CheckpointError for a file that isn't whole."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            head = opened.read(size) if size <= _MOST_BYTES else b""
        named = msgspec.json.decode(head, type=dict[str, _Array])
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: is damaged: it has no head that names its arrays") from error
    return {name: tuple(array.shape) for name, array in named.items() if name != "__metadata__"}
