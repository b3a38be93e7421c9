"""The file and the batch that the documentation's examples name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nearfar.batches.records import Batch, File, Progress, StoredBatch
from nearfar.dialects.openai.batch.batches import BATCH_ID
from nearfar.dialects.openai.batch.files import FILE_ID

if TYPE_CHECKING:
    from litestar import Litestar

    from nearfar.batches.store import Store


async def store_examples(app: Litestar) -> None:
    """Store both for callers without a key, unless they are stored already."""
    await app.state.batches.storage.run(_store)


def _store(store: Store) -> None:
    now = int(time.time())
    if store.file("", FILE_ID) is None:
        store.partial(FILE_ID).write_bytes(b"{}")
        store.add_file("", File(id=FILE_ID, bytes=2, created_at=now, filename="input.jsonl", purpose="batch"))
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
