"""Runs all batches: those of one key one after another, those of several keys side by side.

Removes expired files and uploads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from nearfar.batches.activity import Activity
from nearfar.batches.answering import AnswerLines
from nearfar.batches.lines import Limits
from nearfar.batches.records import StoredBatch
from nearfar.batches.run import BatchRun, Shared
from nearfar.batches.storage import Storage
from nearfar.batches.store import Store
from nearfar.batches.upload_store import delete_expired_uploads
from nearfar.core.errors import StorageUnavailable
from nearfar.telemetry.events import Observer

_CHECK_EVERY_S = 60.0
_RETRY_S = 1.0  # while another server uses the folder, as the last worker does for a moment
_STOP_S = 3.0  # the process has 5 s to end
_log = logging.getLogger(__name__)


class BatchQueue:
    """The batches that haven't ended. ``start`` begins to run them on this event loop."""

    def __init__(self, storage: Storage, answer: AnswerLines, limits: Limits, observe: Observer) -> None:
        self.storage = storage
        self.activity = Activity()
        self._shared = Shared(storage=storage, answer=answer, limits=limits, activity=self.activity, observe=observe)
        self._runs: dict[str, tuple[str, BatchRun]] = {}  # by id, each with its owner
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._problem = ""
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to run what is stored, and what is added later."""
        self._loop = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Begin to run a batch that was added."""
        self._wake.set()

    def cancel(self, batch_id: str) -> None:
        """End a batch that is ``cancelling``: one that runs, or one that waits."""
        if batch_id in self._runs:
            self._runs[batch_id][1].cancel()
        self._wake.set()

    async def close(self) -> None:
        """Begin no more lines, wait for those in flight, and close the store."""
        if self._loop:
            self._loop.cancel()
        runs = [run for _, run in self._runs.values()]
        for run in runs:
            run.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        with suppress(StorageUnavailable):
            for run in runs:
                await run.record_starts(0)
        await self.storage.close()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            wait_s = _CHECK_EVERY_S
            if self.storage.exists:
                try:
                    await self._begin()
                except StorageUnavailable as error:
                    wait_s = _RETRY_S
                    if str(error) != self._problem:
                        _log.warning("batches don't run: %s", error)
                    self._problem = str(error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)

    async def _begin(self) -> None:
        """Delete expired files and uploads, and begin the oldest batch of each owner of which none runs."""
        now = int(time.time())
        await self.storage.run(lambda store: store.delete_expired(now))
        await self.storage.run(lambda store: delete_expired_uploads(store, now))
        for stored in await self.storage.run(Store.open_batches):
            batch, owners = stored.batch, {owner for owner, _ in self._runs.values()}
            if batch.id in self._runs or (stored.owner in owners and batch.status != "cancelling"):
                continue
            run = BatchRun(self._shared, stored)
            self._runs[batch.id] = stored.owner, run
            task = asyncio.create_task(self._run_one(run, stored))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._problem = ""

    async def _run_one(self, run: BatchRun, stored: StoredBatch) -> None:
        batch = stored.batch
        try:
            _log.info("batch %s: begins, %s", batch.id, batch.status)
            ended = await run.run()
            counts = ended.batch.request_counts
            _log.info(
                "batch %s: %s, %d lines: %d answered, %d failed",
                *(batch.id, ended.batch.status, counts.total, counts.completed, counts.failed),
            )
        except StorageUnavailable as error:
            _log.error("batch %s: stopped, and goes on later: %s", batch.id, error)
            await asyncio.sleep(_RETRY_S)
        except Exception:  # noqa: BLE001 — the other batches go on
            _log.exception("batch %s: stopped by an unexpected error, and goes on later", batch.id)
            await asyncio.sleep(_CHECK_EVERY_S)
        finally:
            del self._runs[batch.id]
            self._wake.set()
