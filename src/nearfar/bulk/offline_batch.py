"""A file of a batch's requests, answered by this process.

A folder beside the output is a store, as a server has one: the input, the answers so far, and how far the batch is. The
answers become the output and error files once all lines are done.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import sqlite3
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from nearfar.batches.activity import Activity
from nearfar.batches.answering import AnswerLines
from nearfar.batches.lines import Limits, check_lines
from nearfar.batches.records import Batch, File, Progress, RequestCounts, StoredBatch
from nearfar.batches.run import BatchRun, Shared
from nearfar.batches.storage import Storage
from nearfar.batches.store import DATABASE, Page, Store, new_id
from nearfar.bulk.partial_results import discard, partial_folder, writing
from nearfar.core.caller import ALL_SCOPES
from nearfar.core.errors import SetupError, StorageFull, StorageUnavailable
from nearfar.telemetry.events import Observer

_T = TypeVar("_T")
_STDIN = Path("-")
_PART = 1 << 20
_UNLIMITED = Limits(1 << 40, 1 << 40)
_YEAR_S = 365 * 86_400
_INPUT, _MODELS = "input", "models"  # what answers depend on, in the batch's metadata


class BatchFiles(Struct, frozen=True):
    """The files of a command. The input may be ``-``, and packed."""

    source: Path
    out: Path
    errors: Path
    overwrites: bool = False

    @property
    def folder(self) -> Path:
        """Return the folder of what is done so far."""
        return partial_folder(self.out)


def prepare(files: BatchFiles, endpoints: Sequence[str]) -> StoredBatch:
    """Return the batch of an earlier run, or a new one once all lines of the input were checked.

    Raises SetupError for an output that exists, for bad lines, and for another input than that of the earlier run.
    """
    _refuse_names(files)
    folder = files.folder
    existing = [] if files.overwrites else [path for path in (files.out, files.errors) if path.exists()]
    is_new = not (folder / DATABASE).exists()
    if is_new:
        _refuse(existing)
    try:
        with closing(Store(folder)) as store:
            found = store.batches("", Page(limit=1))
            stored = _check_input(files, found[0]) if found else _add(store, files, endpoints)
            if stored.batch.status != "completed":  # or a crash came before the folder was deleted
                _refuse(existing)
            return stored
    except SetupError:
        if is_new:
            discard(folder)
        raise
    except StorageUnavailable as error:
        is_in_use = error.retry_after_s
        raise SetupError(f"{folder} is in use: the same command runs already" if is_in_use else str(error)) from error
    except (OSError, sqlite3.Error) as error:
        raise SetupError(f"{folder} can't be used ({error})") from error


def _refuse_names(files: BatchFiles) -> None:
    """Raise SetupError for an output that is a folder, or the same file as the input or the other output."""
    outputs = (files.out, files.errors)
    if len({path.resolve() for path in (files.source, *outputs)}) <= len(outputs):
        raise SetupError(f"{files.source}, {files.out} and {files.errors} must be three files")
    if folder := next(filter(Path.is_dir, outputs), None):
        raise SetupError(f"{folder} is a folder; name a file")


def _refuse(existing: Sequence[Path]) -> None:
    if existing:
        raise SetupError(f"{existing[0]} exists; delete it, or use --overwrite")


def _check_input(files: BatchFiles, stored: StoredBatch) -> StoredBatch:
    digest = _copy(files.source, Path("/dev/null"))
    if (stored.batch.metadata or {})[_INPUT] != digest:
        raise SetupError(f"{files.source} isn't what {files.folder} has answers to; restore it, or delete the folder")
    return stored


def _add(store: Store, files: BatchFiles, endpoints: Sequence[str]) -> StoredBatch:
    """Copy and check the input, and store a new batch."""
    file_id = new_id("file-")
    copy = store.partial(file_id)
    digest = _copy(files.source, copy)
    with copy.open("rb") as lines:
        checked = check_lines(lines, endpoints, _UNLIMITED)
    if checked.faults:
        found = [f"line {one.line}: {one.message}" if one.line else one.message for one in checked.faults]
        raise SetupError("\n".join([f"{files.source} can't be answered; nearfar docs tables has an example:", *found]))
    size = copy.stat().st_size
    store.add_file("", File(id=file_id, bytes=size, created_at=0, filename=files.source.name, purpose="batch"))
    batch = Batch(
        id=new_id("batch_"),
        endpoint="",  # each line has its own
        input_file_id=file_id,
        completion_window="",
        status="in_progress",
        created_at=0,
        expires_at=0,
        request_counts=RequestCounts(checked.total),
        metadata={_INPUT: digest},
    )
    progress = Progress(scopes=ALL_SCOPES, keep_s=_YEAR_S, output_id=new_id("file-"), error_id=new_id("file-"))
    stored = StoredBatch(owner="", batch=batch, progress=progress)
    store.add_batch(stored)
    for answers_id in (progress.output_id, progress.error_id):
        store.path(answers_id).touch()  # with the usual mode, which a server's files don't have
    return stored


def _copy(source: Path, to: Path) -> str:
    """Copy an input, unpacked. Return its digest. Raises SetupError for one that can't be read."""
    digest = hashlib.sha256()
    try:
        with sys.stdin.buffer if source == _STDIN else source.open("rb") as file, to.open("wb") as copy:
            is_packed = source.suffix.lower() == ".gz"
            lines = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if is_packed else file
            while part := lines.read(_PART):
                digest.update(part)
                copy.write(part)
    except (OSError, EOFError, zlib.error) as error:
        raise SetupError(f"{source} can't be copied to {to.parent} ({error})") from error
    return digest.hexdigest()


async def answer_all(
    files: BatchFiles, stored: StoredBatch, answer: AnswerLines, models: str, observe: Observer
) -> StoredBatch:
    """Answer the lines that an earlier run left. ``models`` is what answers depend on beside the input.

    Raises SetupError if the earlier run had other models, and StorageUnavailable.
    """
    storage = _FolderStorage(files.folder)
    metadata = {_MODELS: models, **(stored.batch.metadata or {})}
    if metadata[_MODELS] != models:
        raise SetupError(
            f"{files.folder} has answers of {metadata[_MODELS]}, not of {models}; repeat that command, or delete the "
            "folder"
        )
    batch = replace(stored.batch, metadata=metadata, expires_at=int(time.time()) + _YEAR_S)
    stored = replace(stored, batch=batch)
    shared = Shared(storage=storage, answer=answer, limits=_UNLIMITED, activity=Activity(), observe=observe)
    run = BatchRun(shared, stored)
    try:
        await storage.run(lambda store: store.change_batch(batch.id, lambda _: stored))
        return await run.run()
    except BaseException:
        await run.record_starts(0)
        raise
    finally:
        await storage.close()


class _FolderStorage(Storage):
    """A full disk stops the command, which goes on later. On a server the batch fails."""

    async def run(self, call: Callable[[Store], _T]) -> _T:
        try:
            return await super().run(call)
        except StorageFull as error:
            raise StorageUnavailable(f"{error}; the same command goes on there") from error


def finish(files: BatchFiles, stored: StoredBatch) -> None:
    """Move the answers to the files of the command, and delete the folder. It may be repeated."""
    with writing(files.out), closing(Store(files.folder)) as store:
        answers, errors = store.path(stored.progress.output_id), store.path(stored.progress.error_id)
        counts = stored.batch.request_counts
        if not counts.completed:
            answers.touch()
        for found, path in ((answers, files.out), (errors, files.errors)):
            if found.exists():
                shutil.move(found, path)
            elif path == files.errors and not counts.failed:
                path.unlink(missing_ok=True)  # of an earlier output
    discard(files.folder)
