"""Safetensors files → whole or not, by their headers and sizes alone; before any engine spends time on them.

A file is eight bytes that give the length of a header, the header in JSON, and the numbers, of which the header says
where each ends. Nothing but the header is read, so a 10 GB file takes as long as a small one.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import msgspec

from nearfar.core.errors import CheckpointError
from nearfar.models.files.json_files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_LENGTH = 8  # bytes before the header
_MOST = 100_000_000  # bytes of a header: what safetensors itself takes
_POINTER = b"version https://git-lfs"
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.safetensors")
_PLAIN = re.compile(r"[^/\\\0]*[^/\\\0.][^/\\\0]*")  # a file's name, and no path
_LONGEST = 255  # bytes of one
_WHOLE = "model.safetensors"
_AGAIN = "download it again"
_TOLD = 200  # characters of what is wrong
_BITS = dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8)
_BITS |= dict.fromkeys(("U16", "I16", "F16", "BF16"), 16) | dict.fromkeys(("U32", "I32", "F32"), 32)
_BITS |= dict.fromkeys(("U64", "I64", "F64", "C64"), 64)


def tensor_names(file: Path) -> list[str]:
    """List the arrays of a file. Raises CheckpointError where the file isn't whole."""
    return [*tensor_shapes(file)]


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Give the shape of each array by its name. Raises CheckpointError where the file isn't whole."""
    arrays = {name: told for name, told in _read_header(file).items() if name != "__metadata__"}
    return {name: tuple(told["shape"]) for name, told in arrays.items()}


def find_tensor_file(folder: Path, name: str) -> Path:
    """Give the file that the array comes from, by the end of its name: a prefix may have been taken off.

    The folder where no file has one of that name.
    """
    endings = (name, name.partition(".")[2])
    for ending in filter(None, endings):
        for file in weight_files(folder):
            if any(found == ending or found.endswith(f".{ending}") for found in tensor_names(file)):
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
    if contradiction := _contradiction(header):
        raise CheckpointError(f"{file}: its header is damaged ({contradiction}); {_AGAIN}")
    return header


def _no_header(size: int) -> str:
    return f"isn't safetensors, or its header is cut off or damaged ({size:,} bytes)"


def _ends(header: dict[str, Any]) -> Iterator[int]:
    for name, told in header.items():
        if name != "__metadata__":
            (start, end), shape = told["data_offsets"], tuple(told["shape"])
            counts = (start, end, *shape)
            if any(type(count) is not int or count < 0 for count in counts) or not isinstance(told["dtype"], str):
                raise TypeError(f"{name[:50]!r} is from {start!r} to {end!r}, of shape {shape!r}"[:_TOLD])
            yield end


def _contradiction(header: dict[str, Any]) -> str:
    """Say which array isn't where it should be, or not as long as its shape says."""
    arrays = [(told["data_offsets"], name, told) for name, told in header.items() if name != "__metadata__"]
    at = 0
    for (start, end), name, told in sorted(arrays, key=lambda array: (array[0], array[1])):
        bits = _BITS.get(told["dtype"], 0)
        if start != at or end < start:
            return f"{name[:50]!r} doesn't start where the array before it ends"
        if bits and math.prod(told["shape"]) * bits != (end - start) * 8:
            return f"{name[:50]!r} isn't as long as its shape says"
        at = end
    return ""


def weight_files(folder: Path) -> list[Path]:
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
    names = sorted({str(name) for name in named.values()})
    stranger = next((name for name in names if not _PLAIN.fullmatch(name) or len(name.encode()) > _LONGEST), None)
    if stranger is not None:
        raise CheckpointError(f"{index}: names {stranger[:_TOLD]!r}, which isn't a file beside it; {_AGAIN}")
    files = [folder / name for name in names]
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
