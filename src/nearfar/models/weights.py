"""Safetensors files → whole or not, by their headers and sizes alone; before any engine spends time on them.

A file is eight bytes that give the length of a header, the header in JSON, and the numbers, of which the header says
where each ends. Nothing but the header is read, so a 10 GB file takes as long as a small one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from nearfar.errors import CheckpointError
from nearfar.models.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_LENGTH = 8  # bytes before the header
_MOST = 100_000_000  # bytes of a header: what safetensors itself takes
_POINTER = b"version https://git-lfs"
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.safetensors")
_WHOLE = "model.safetensors"
_AGAIN = "download it again"


def names_in(file: Path) -> list[str]:
    """List the arrays of a file. Raises CheckpointError where the file isn't whole."""
    return [*shapes_in(file)]


def shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    """Give the shape of each array by its name. Raises CheckpointError where the file isn't whole."""
    arrays = {name: told for name, told in _read_header(file).items() if name != "__metadata__"}
    return {name: tuple(told["shape"]) for name, told in arrays.items()}


def file_of(folder: Path, name: str) -> Path:
    """Give the file that the array comes from, by the end of its name: a prefix may have been taken off.

    The folder where no file has one of that name.
    """
    endings = (name, name.partition(".")[2])
    for ending in filter(None, endings):
        for file in files_of(folder):
            if any(found == ending or found.endswith(f".{ending}") for found in names_in(file)):
                return file
    return folder


def _read_header(file: Path) -> dict[str, Any]:
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(max(_LENGTH, len(_POINTER)))
            if start.startswith(_POINTER):
                raise CheckpointError(f"{file}: is a Git LFS pointer and not the weights; run git lfs pull")
            length = int.from_bytes(start[:_LENGTH], "little")
            if size <= _LENGTH or length > min(_MOST, size - _LENGTH):
                raise CheckpointError(f"{file}: {'is empty' if size == 0 else _no_header(size)}; {_AGAIN}")
            opened.seek(_LENGTH)
            header = msgspec.json.decode(opened.read(length), type=dict[str, Any])
            needed = _LENGTH + length + max(_ends(header), default=0)
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror}); {_AGAIN}") from error
    except (msgspec.DecodeError, ValueError, RecursionError, LookupError, TypeError) as error:
        raise CheckpointError(f"{file}: its header is damaged ({error}); {_AGAIN}") from error
    if needed != size:
        how = "is cut short" if size < needed else "has more in it than its header says"
        raise CheckpointError(f"{file}: {how}, {size:,} bytes instead of {needed:,}; {_AGAIN}")
    return header


def _no_header(size: int) -> str:
    return f"isn't safetensors, or its header is cut off or damaged ({size:,} bytes)"


def _ends(header: dict[str, Any]) -> Iterator[int]:
    for name, told in header.items():
        if name != "__metadata__":
            (_, end), _ = told["data_offsets"], tuple(told["shape"])
            if not isinstance(end, int) or end < 0:
                raise TypeError(f"{name[:50]} ends at {end!r}")
            yield end


def files_of(folder: Path) -> list[Path]:
    """List the files that transformers would load: others may lie there in another precision, or half downloaded.

    Raises CheckpointError where one is absent that the index names, or that the files' own names count.
    """
    whole, index = folder / _WHOLE, folder / f"{_WHOLE}.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return _counted(folder, index.name)
    named = read_json(index, dict[str, Any]).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise CheckpointError(f"{index}: names no file with weights; {_AGAIN}")
    files = [folder / name for name in sorted({str(name) for name in named.values()})]
    absent = next((file.name for file in files if not file.is_file()), None)
    if absent:
        raise CheckpointError(f"{index}: names {absent}, which isn't there; download that file")
    return files


def _counted(folder: Path, index: str) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    for shard in filter(None, (_SHARD.fullmatch(file.name) for file in files)):
        stem, _, count = shard.groups()
        for number in range(1, int(count) + 1):
            file = folder / f"{stem}-{number:05}-of-{count}.safetensors"
            if not file.is_file():
                raise CheckpointError(f"{file}: isn't there, and neither is {index}; download both")
    return files
