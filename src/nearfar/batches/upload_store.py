"""Files that are uploaded in parts, in the store of files. The bytes of a part are stored like those of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from nearfar.batches.records import File, StoredUpload, UploadPart
from nearfar.batches.store import Store

_ENDED_KEPT_S = 3600  # how long an expired upload can still be named in an error
_COPIED = 1_048_576  # bytes at once


def add_upload(store: Store, stored: StoredUpload) -> None:
    """Store a new upload."""
    upload = stored.upload
    with store.database:
        store.database.execute(
            "INSERT INTO uploads (id, owner, bytes, has_ended, expires_at, record) VALUES (?, ?, ?, 0, ?, ?)",
            (upload.id, stored.owner, upload.bytes, upload.expires_at, msgspec.json.encode(stored)),
        )


def find_upload(store: Store, owner: str, upload_id: str, now: int) -> StoredUpload | None:
    """Return an owner's upload, with the status that it has now."""
    sql = "SELECT record FROM uploads WHERE owner = ? AND id = ?"
    row = store.database.execute(sql, (owner, upload_id)).fetchone()
    if row is None:
        return None
    stored = msgspec.json.decode(row[0], type=StoredUpload)
    upload = stored.upload
    if upload.status == "pending" and upload.expires_at <= now:
        return replace(stored, upload=replace(upload, status="expired"))
    return stored


def part_sizes(store: Store, upload_id: str) -> dict[str, int]:
    """Return the bytes of each part of an upload."""
    return dict(store.database.execute("SELECT id, bytes FROM upload_parts WHERE upload_id = ?", (upload_id,)))


def add_part(store: Store, part: UploadPart, size: int) -> bool:
    """Store a part. Its bytes are in ``partial``. Return False, and store nothing, if the upload has ended."""
    sql = "SELECT 1 FROM uploads WHERE id = ? AND NOT has_ended"
    if store.database.execute(sql, (part.upload_id,)).fetchone() is None:
        return False
    store.keep(part.id)
    with store.database:
        store.database.execute("INSERT INTO upload_parts VALUES (?, ?, ?)", (part.id, part.upload_id, size))
    return True


def join_parts(parts: Sequence[Path], target: Path) -> str | None:
    """Write the bytes of all parts to ``target``. Return their MD5; None if a part was deleted meanwhile.

    To be called in a thread.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with target.open("wb") as joined:
        for part in parts:
            try:
                file = part.open("rb")
            except FileNotFoundError:
                return None
            with file:
                while data := file.read(_COPIED):
                    digest.update(data)
                    joined.write(data)
    return digest.hexdigest()


def end_upload(store: Store, stored: StoredUpload, file: File | None = None) -> bool:
    """Replace an upload that has ended, add its file, and delete its parts. The file's bytes are in ``partial``.

    Return False, and change nothing, if it had ended before.
    """
    upload_id = stored.upload.id
    if file:
        store.keep(file.id)
    with store.database:
        sql = "UPDATE uploads SET has_ended = 1, record = ? WHERE id = ? AND NOT has_ended"
        if not store.database.execute(sql, (msgspec.json.encode(stored), upload_id)).rowcount:
            if file:
                store.path(file.id).unlink()
            return False
        if file:
            store.insert_file(stored.owner, file)
        part_ids = part_sizes(store, upload_id)
        store.database.execute("DELETE FROM upload_parts WHERE upload_id = ?", (upload_id,))
    for part_id in part_ids:
        store.path(part_id).unlink(missing_ok=True)
    return True


def delete_expired_uploads(store: Store, now: int) -> None:
    """End uploads that have expired, and forget those that ended long before."""
    sql = "SELECT owner, id FROM uploads WHERE expires_at <= ? AND NOT has_ended"
    for owner, upload_id in store.database.execute(sql, (now,)).fetchall():
        if stored := find_upload(store, owner, upload_id, now):
            end_upload(store, stored)
    with store.database:
        store.database.execute("DELETE FROM uploads WHERE expires_at <= ? AND has_ended", (now - _ENDED_KEPT_S,))
