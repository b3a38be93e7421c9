"""What a command has computed so far, on disk, so that the same command goes on where it was stopped.

A folder beside the output has the results of whole blocks of rows, and how many bytes of them are certain. What was
written after those is cut off when the folder is opened again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from nearfar.core.errors import SetupError

Array = npt.NDArray[Any]
_VECTORS, _RECORDS, _BAD = "vectors.bin", "records.jsonl", "bad.jsonl"
_PROGRESS = "progress.json"
_READ_ROWS = 16_384


class Record(Struct, frozen=True, array_like=True):
    """A row of the output beside its vector."""

    id: int | str
    start: int | None = None  # of a chunk, in characters of its text, as is ``stop``
    stop: int | None = None
    text: str | None = None
    has_vector: bool = True


class BadRow(Struct, frozen=True):
    """A row of the input that has no vector."""

    row: int  # from 0
    id: int | str
    reason: str


class Done(Struct, frozen=True, kw_only=True):
    """How far the command has come."""

    rows_read: int = 0
    rows_written: int = 0
    tokens: int = 0
    cut: int = 0  # texts
    bad: dict[str, int] = {}
    has_text_ids: bool = False
    width: int | None = None  # numbers of a vector, as stored
    dtype: str = "float32"
    sizes: tuple[int, int, int] = (0, 0, 0)  # of the three files
    written: tuple[str, ...] = ()  # whole files of the output, which may have their final names already


class Checkpoint:
    """Opens or creates the folder of a command. ``job`` is what its results depend on.

    Raises SetupError if the folder is of another job, or is in use.
    """

    def __init__(self, folder: Path, job: dict[str, object]) -> None:
        self._folder = folder
        self.done = Done()
        with ExitStack() as opened:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = opened.enter_context((folder / "lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SetupError(f"{folder} is in use: the same command runs already") from None
            self._check_job(job)
            self.done = read_done(folder)
            paths = [folder / name for name in (_VECTORS, _RECORDS, _BAD)]
            self._files = [opened.enter_context(path.open("ab")) for path in paths]
            for file, size in zip(self._files, self.done.sizes, strict=True):
                file.truncate(size)
            self._opened = opened.pop_all()

    def _check_job(self, job: dict[str, object]) -> None:
        path = self._folder / "job.json"
        found = msgspec.json.decode(msgspec.json.encode(job))
        if not path.exists():
            _write(path, msgspec.json.format(msgspec.json.encode(job)))
            return
        other = msgspec.json.decode(path.read_bytes())
        changed = [name for name in found | other if found.get(name) != other.get(name)]
        if changed:
            raise SetupError(
                f"{self._folder} has results of a command with another {' and another '.join(changed)}; repeat that "
                "command, or delete the folder"
            )

    def append(self, vectors: Array, records: Sequence[Record], bad: Sequence[BadRow], done: Done) -> None:
        """Store a block's results. ``vectors`` are of the records that have one; ``done`` counts them already."""
        parts = (
            np.ascontiguousarray(vectors).tobytes(),
            msgspec.json.Encoder().encode_lines(records),
            msgspec.json.Encoder().encode_lines(bad),
        )
        for file, data in zip(self._files, parts, strict=True):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sizes = tuple(size + len(data) for size, data in zip(self.done.sizes, parts, strict=True))
        self.done = msgspec.structs.replace(done, sizes=sizes)
        _write(self._folder / _PROGRESS, msgspec.json.encode(self.done))

    def results(self) -> Iterator[tuple[list[Record], Array]]:
        """Yield all records, some thousands at a time, with the vectors of those that have one."""
        width = self.done.width or 0
        decoder = msgspec.json.Decoder(Record)
        with (self._folder / _RECORDS).open("rb") as lines, (self._folder / _VECTORS).open("rb") as vectors:
            while data := [line for _, line in zip(range(_READ_ROWS), lines, strict=False)]:
                records = [decoder.decode(line) for line in data]
                count = sum(record.has_vector for record in records)
                yield records, np.fromfile(vectors, self.done.dtype, count * width).reshape(count, width)

    def record_written(self, files: Sequence[Path]) -> None:
        """Store that the files of the output are whole."""
        for path in files:
            if path.is_file():  # LanceDB syncs its own
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        self.done = msgspec.structs.replace(self.done, written=tuple(path.name for path in files))
        _write(self._folder / _PROGRESS, msgspec.json.encode(self.done))

    def keep_bad(self, path: Path) -> None:
        """Copy the list of bad rows to a file."""
        shutil.copyfile(self._folder / _BAD, path)

    def close(self) -> None:
        """Close the folder, and leave it for the next time."""
        self._opened.close()

    def remove(self) -> None:
        """Close and delete the folder."""
        self.close()
        discard(self._folder)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Raise SetupError where an output, or what becomes of it, can't be written, such as on a full disk."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SetupError(
            f"{out} can't be written ({why}). What is done is kept: the same command goes on there"
        ) from error


def partial_folder(out: Path) -> Path:
    """Return the folder of the results that become an output."""
    return out.with_name(out.name + ".partial")


def read_done(folder: Path) -> Done:
    """Return how far the command of a folder has come."""
    progress = folder / _PROGRESS
    return msgspec.json.decode(progress.read_bytes(), type=Done) if progress.exists() else Done()


def discard(folder: Path) -> None:
    """Delete a folder, so that after a crash it has all its files or doesn't exist."""
    trash = folder.with_name(folder.name + ".deleted")
    shutil.rmtree(trash, ignore_errors=True)
    folder.rename(trash)
    shutil.rmtree(trash)


def _write(path: Path, data: bytes) -> None:
    """Replace a file, so that after a crash it has its old or its new bytes."""
    partial = path.with_suffix(".new")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
