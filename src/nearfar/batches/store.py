"""The store of files, uploads and batches: SQLite for what is known of them, and a folder for their bytes.

A file's bytes are on disk before its row, and its row is removed before its bytes, so that a crash at any moment loses
nothing that was acknowledged. What a crash leaves without a row is removed at the next start. Used by one thread.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from nearfar.batches.records import ENDED, File, StoredBatch
from nearfar.core.errors import StorageUnavailable

_T = TypeVar("_T")
DATABASE = "batches.sqlite3"
_SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS files (
        place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, purpose TEXT NOT NULL,
        bytes INTEGER NOT NULL, expires_at INTEGER, record BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS files_of_owner ON files (owner, place);
    CREATE TABLE IF NOT EXISTS batches (
        place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL,
        has_ended INTEGER NOT NULL, record BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS batches_of_owner ON batches (owner, place);
    CREATE INDEX IF NOT EXISTS open_batches ON batches (place) WHERE NOT has_ended;
    CREATE TABLE IF NOT EXISTS uploads (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, bytes INTEGER NOT NULL, has_ended INTEGER NOT NULL,
        expires_at INTEGER NOT NULL, record BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS uploads_of_owner ON uploads (owner);
    CREATE TABLE IF NOT EXISTS upload_parts (
        id TEXT PRIMARY KEY, upload_id TEXT NOT NULL, bytes INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS parts_of_upload ON upload_parts (upload_id);
"""
# An upload that hasn't ended needs the bytes that it was created with, or those of its parts if they are more.
_USED = """
    SELECT count(*), coalesce(sum(bytes), 0) FROM (
        SELECT bytes FROM files WHERE owner = :owner
        UNION ALL SELECT max(bytes, (SELECT coalesce(sum(bytes), 0) FROM upload_parts WHERE upload_id = uploads.id))
            FROM uploads WHERE owner = :owner AND NOT has_ended
        UNION ALL SELECT 0 FROM upload_parts JOIN uploads ON upload_id = uploads.id WHERE owner = :owner
    )
"""
_PARTIAL = ".partial"


class Page(Struct, frozen=True, kw_only=True):
    """Which items of a list to return: up to ``limit``, after the one with the id ``after``."""

    limit: int
    after: str | None = None
    newest_first: bool = True


def new_id(kind: str) -> str:
    """Return a new id that can't be guessed, such as ``file-…``."""
    return kind + secrets.token_hex(16)


class Store:
    """Opens a folder, which no other process may use at the same time.

    Raises StorageUnavailable if another one does, and if the database or the folder can't be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._files = folder / "files"
        with ExitStack() as opened:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._files.mkdir(mode=0o700, exist_ok=True)
                (folder / DATABASE).touch(mode=0o600)  # SQLite's other files get the same mode
                lock = opened.enter_context((folder / "lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.database = sqlite3.connect(folder / DATABASE, check_same_thread=False)
                opened.callback(self.database.close)
                self.database.executescript(_SCHEMA)
                self._check()
                self._remove_orphans()
            except BlockingIOError:
                raise StorageUnavailable(f"another server uses the state folder {folder}; set state_dir", 1) from None
            except (OSError, sqlite3.Error) as error:
                raise StorageUnavailable(f"the state folder {folder} can't be used ({error})") from error
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the database, and unlock the folder."""
        self._opened.close()

    def _check(self) -> None:
        (found,) = self.database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)

    def _remove_orphans(self) -> None:
        """Remove files without a row: uploads that a crash interrupted, and deleted files."""
        known = {id_ for (id_,) in self.database.execute("SELECT id FROM files UNION ALL SELECT id FROM upload_parts")}
        for stored in self.open_batches():
            known |= {stored.progress.output_id, stored.progress.error_id}
        for path in self._files.iterdir():
            if path.name not in known:
                path.unlink()

    # Files

    def path(self, file_id: str) -> Path:
        """Return where the bytes of a file are."""
        return self._files / file_id

    def partial(self, file_id: str) -> Path:
        """Return where the bytes of a file are while it is uploaded."""
        return self._files / (file_id + _PARTIAL)

    def add_file(self, owner: str, file: File) -> None:
        """Store a file. Its bytes are in ``partial``."""
        self.keep(file.id)
        with self.database:
            self.insert_file(owner, file)

    def keep(self, file_id: str) -> None:
        """Move the bytes in ``partial`` to ``path``, and write both to disk."""
        partial = self.partial(file_id)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.rename(self.path(file_id))
        _sync_folder(self._files)

    def insert_file(self, owner: str, file: File) -> None:
        """Insert the row of a file, in a transaction of the caller's."""
        self.database.execute(
            "INSERT INTO files (id, owner, purpose, bytes, expires_at, record) VALUES (?, ?, ?, ?, ?, ?)",
            (file.id, owner, file.purpose, file.bytes, file.expires_at, msgspec.json.encode(file)),
        )

    def append(self, file_id: str, size: int, lines: Iterable[bytes]) -> int:
        """Write lines after the first ``size`` bytes of a batch's output file. Return its new size."""
        number = os.open(self.path(file_id), os.O_RDWR | os.O_CREAT, 0o600)
        with open(number, "r+b") as file:  # noqa: PTH123 — of a number
            file.truncate(size)
            file.seek(size)
            file.writelines(lines)
            file.flush()
            os.fsync(number)
            return file.tell()

    def file(self, owner: str, file_id: str) -> File | None:
        """Return an owner's file."""
        return self._one("files", owner, file_id, File)

    def files(self, owner: str, page: Page, purpose: str | None) -> list[File]:
        """Return a page of an owner's files."""
        return self._page("files", owner, page, File, purpose=purpose)

    def count_files(self, owner: str) -> tuple[int, int]:
        """Return how many files an owner has, and their bytes. Uploads that haven't ended and their parts count."""
        count, size = self.database.execute(_USED, {"owner": owner}).fetchone()
        return count, size

    def delete_file(self, owner: str, file_id: str) -> bool:
        """Delete an owner's file. Return whether there was one."""
        if not self.file(owner, file_id):
            return False
        path = self.path(file_id)
        try:
            self._delete_row(file_id)
        except sqlite3.OperationalError as error:
            if "disk is full" not in str(error):
                raise
            path.write_bytes(b"")  # which makes room for the change
            self._delete_row(file_id)
        path.unlink(missing_ok=True)
        return True

    def _delete_row(self, file_id: str) -> None:
        with self.database:
            self.database.execute("DELETE FROM files WHERE id = ?", (file_id,))

    def delete_expired(self, now: int) -> int:
        """Delete expired files, except inputs of open batches. Return how many."""
        needed = {stored.batch.input_file_id for stored in self.open_batches()}
        rows = self.database.execute("SELECT owner, id FROM files WHERE expires_at <= ?", (now,)).fetchall()
        return sum(self.delete_file(owner, id_) for owner, id_ in rows if id_ not in needed)

    # Batches

    def add_batch(self, stored: StoredBatch) -> None:
        """Store a new batch."""
        with self.database:
            self.database.execute(
                "INSERT INTO batches (id, owner, has_ended, record) VALUES (?, ?, 0, ?)",
                (stored.batch.id, stored.owner, msgspec.json.encode(stored)),
            )

    def batch(self, owner: str, batch_id: str) -> StoredBatch | None:
        """Return an owner's batch."""
        return self._one("batches", owner, batch_id, StoredBatch)

    def batches(self, owner: str, page: Page) -> list[StoredBatch]:
        """Return a page of an owner's batches."""
        return self._page("batches", owner, page, StoredBatch)

    def open_batches(self) -> list[StoredBatch]:
        """Return all batches that haven't ended, the oldest first."""
        rows = self.database.execute("SELECT record FROM batches WHERE NOT has_ended ORDER BY place")
        return [msgspec.json.decode(record, type=StoredBatch) for (record,) in rows]

    def change_batch(self, batch_id: str, change: Callable[[StoredBatch], StoredBatch]) -> StoredBatch:
        """Replace a batch by what ``change`` makes of it, and return that."""
        (record,) = self.database.execute("SELECT record FROM batches WHERE id = ?", (batch_id,)).fetchone()
        stored = change(msgspec.json.decode(record, type=StoredBatch))
        with self.database:
            self._update(stored)
        return stored

    def _update(self, stored: StoredBatch) -> None:
        self.database.execute(
            "UPDATE batches SET has_ended = ?, record = ? WHERE id = ?",
            (stored.batch.status in ENDED, msgspec.json.encode(stored), stored.batch.id),
        )

    def end_batch(self, stored: StoredBatch, outputs: Sequence[File]) -> None:
        """Replace a batch that has ended, and add its output files, without what was appended in part.

        That goes first: on a full disk it makes room for the change.
        """
        kept = {file.id for file in outputs}
        for file_id in (stored.progress.output_id, stored.progress.error_id):
            if file_id not in kept:
                self.path(file_id).unlink(missing_ok=True)
        for file in outputs:
            self.append(file.id, file.bytes, [])
        with self.database:
            for file in outputs:
                self.insert_file(stored.owner, file)
            self._update(stored)

    # Both

    def _one(self, table: str, owner: str, item_id: str, kind: type[_T]) -> _T | None:
        sql = f"SELECT record FROM {table} WHERE owner = ? AND id = ?"  # noqa: S608 — a name of ours
        row = self.database.execute(sql, (owner, item_id)).fetchone()
        return msgspec.json.decode(row[0], type=kind) if row else None

    def _page(self, table: str, owner: str, page: Page, kind: type[_T], **fields: str | None) -> list[_T]:
        where, values = ["owner = ?"], [owner]
        for name, value in fields.items():
            if value is not None:
                where.append(f"{name} = ?")
                values.append(value)
        order = "DESC" if page.newest_first else "ASC"
        if page.after is not None:
            where.append(f"place {'<' if page.newest_first else '>'} (SELECT place FROM {table} WHERE id = ?)")  # noqa: S608
            values.append(page.after)
        sql = f"SELECT record FROM {table} WHERE {' AND '.join(where)} ORDER BY place {order} LIMIT {page.limit:d}"  # noqa: S608
        return [msgspec.json.decode(record, type=kind) for (record,) in self.database.execute(sql, values)]


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
