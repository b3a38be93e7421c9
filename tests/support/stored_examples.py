"""The file, the upload and the batch that the documentation's examples name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nearfar.batches.records import Batch, File, Progress, StoredBatch, StoredUpload, Upload, UploadPart
from nearfar.batches.upload_store import add_part, add_upload
from nearfar.dialects.openai.batch.batches import BATCH_ID
from nearfar.dialects.openai.batch.files import FILE_ID
from nearfar.dialects.openai.batch.uploads import PART_ID, UPLOAD_ID

if TYPE_CHECKING:
    from litestar import Litestar

    from nearfar.batches.store import Store


async def store_examples(app: Litestar) -> None:
    """Store them for callers without a key, unless they are stored already. The upload becomes pending again."""
    await app.state.batches.storage.run(_store)


def _store(store: Store) -> None:
    now = int(time.time())
    if store.file("", FILE_ID) is None:
        store.partial(FILE_ID).write_bytes(b"{}")
        store.add_file("", File(id=FILE_ID, bytes=2, created_at=now, filename="input.jsonl", purpose="batch"))
    _store_upload(store, now)
    if store.batch("", BATCH_ID) is None:
        batch = Batch(
            id=BATCH_ID,
            endpoint="/v1/embeddings",
            input_file_id=FILE_ID,
            completion_window="24h",
            status="cancelling",
            created_at=now,
            expires_at=now + 86_400,
        )
        progress = Progress(scopes=("embed",), keep_s=86_400, output_id="file-output", error_id="file-error")
        store.add_batch(StoredBatch(owner="", batch=batch, progress=progress))


def _store_upload(store: Store, now: int) -> None:
    with store.database:
        store.database.execute("DELETE FROM uploads WHERE id = ?", (UPLOAD_ID,))
        store.database.execute("DELETE FROM upload_parts WHERE upload_id = ?", (UPLOAD_ID,))
    upload = Upload(id=UPLOAD_ID, bytes=2, created_at=now, expires_at=now + 3600, filename="input.jsonl")
    add_upload(store, StoredUpload(owner="", upload=upload, keep_s=3600))
    store.partial(PART_ID).write_bytes(b"{}")
    add_part(store, UploadPart(id=PART_ID, created_at=now, upload_id=UPLOAD_ID), 2)
