"""One batch: its lines are checked, answered many at a time, and stored in their order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from nearfar.batches.activity import Activity
from nearfar.batches.answering import Answered, AnswerLine, LineAnswering
from nearfar.batches.lines import Checked, Limits, check_lines, decode_line, read_lines
from nearfar.batches.records import Batch, Fault, Faults, File, Progress, RequestCounts, StoredBatch
from nearfar.batches.storage import Storage
from nearfar.batches.store import Store
from nearfar.core.errors import StorageFull
from nearfar.telemetry.events import BatchEnded, BatchLinesStored, EndedStatus, Observer

# Lines that begin together, and run as one job where they can.
_GROUP_LINES = 256
# In flight, or answered and not stored yet: a second group waits while the first runs.
_MAX_LINES, _MAX_BYTES = 2 * _GROUP_LINES, 4_000_000
_STORE_EVERY_S = 0.5
# While requests come, so many lines are answered, and then none for so long.
_ACTIVE_LINES, _PAUSE_S, _CHECK_S = 32, 1.0, 0.02
# How often a batch may be started at one line before lines run alone, and before that line fails.
_ALONE_AFTER, _FAILS_AFTER = 2, 4
_ENDED_AT: dict[EndedStatus, str] = {
    "failed": "failed_at",
    "completed": "completed_at",
    "expired": "expired_at",
    "cancelled": "cancelled_at",
}


class _Pending(Struct, frozen=True):
    """A line that is being answered, its size, and where the next one begins."""

    task: asyncio.Task[Answered]
    size: int
    end: int


class Shared(Struct, frozen=True, kw_only=True):
    """What all batches of a server have in common."""

    storage: Storage
    answer: AnswerLine
    limits: Limits
    activity: Activity
    observe: Observer


class BatchRun:
    """Runs one batch to its end. After ``stop``, or a crash, it goes on at the first line without a stored answer."""

    def __init__(self, shared: Shared, stored: StoredBatch) -> None:
        self._shared = shared
        self._storage = shared.storage
        self._stored = stored
        self._lines = LineAnswering(shared.answer, stored)
        self._pending: deque[_Pending] = deque()
        self._done: list[_Pending] = []
        self._done_bytes = 0
        self._stored_at = 0.0
        self._is_expired = False
        self._is_stopping = False
        self._cancelled = asyncio.Event()

    def stop(self) -> None:
        """Begin no more lines. Those in flight are answered and stored."""
        self._is_stopping = True

    async def record_stop(self) -> None:
        """Record that the server was stopped, which is no fault of the line that the batch was started at."""
        await self._change(lambda stored: replace(stored, progress=replace(stored.progress, starts=0)))

    def cancel(self) -> None:
        """Answer no more lines: the batch is ``cancelling``."""
        self._cancelled.set()

    async def run(self) -> StoredBatch:
        """Run the batch, and return what it became. Raises StorageUnavailable."""
        try:
            if self._stored.batch.status == "validating":
                await self._check()
            if self._stored.batch.status == "in_progress":
                await self._answer_lines()
            await self._finish()
        except StorageFull as error:
            await self._end("failed", Fault("storage_full", f"The answers can't be stored: {error}."))
        except FileNotFoundError:
            await self._end("failed", Fault("file_not_found", "The input file was deleted.", "input_file_id"))
        return self._stored

    async def _check(self) -> None:
        """Check all lines. A batch with faults fails, and none of its lines is answered."""
        path = await self._input_path()
        checked = await asyncio.to_thread(_check_file, path, self._stored.batch.endpoint, self._shared.limits)
        if checked.faults:
            await self._end("failed", *checked.faults)
            return

        def begin(stored: StoredBatch) -> StoredBatch:
            batch = replace(stored.batch, model=checked.model, request_counts=RequestCounts(checked.total))
            if batch.status == "validating":
                batch = replace(batch, status="in_progress", in_progress_at=_now())
            return replace(stored, batch=batch)

        await self._change(begin)

    async def _input_path(self) -> Path:
        file_id = self._stored.batch.input_file_id
        return await self._storage.run(lambda store: store.path(file_id))

    async def _change(self, change: Callable[[StoredBatch], StoredBatch]) -> None:
        batch_id = self._stored.batch.id
        self._stored = await self._storage.run(lambda store: store.change_batch(batch_id, change))

    async def _answer_lines(self) -> None:
        await self._change(_started)
        path = await self._input_path()
        self._stored_at = time.monotonic()
        with path.open("rb") as file:
            lines = read_lines(file, self._stored.progress.offset)
            try:
                while await self._fill(lines):
                    await self._wait()
                    is_due = time.monotonic() - self._stored_at > _STORE_EVERY_S or not self._pending
                    if is_due or self._done_bytes > _MAX_BYTES:
                        await self._store_done()
            finally:
                for pending in self._pending:
                    pending.task.cancel()
        await self._store_done()

    async def _fill(self, lines: Iterator[tuple[bytes, int]]) -> bool:
        """Begin lines while there is room. Return whether any is in flight."""
        starts = self._stored.progress.starts
        width = 1 if starts > _ALONE_AFTER else _MAX_LINES
        if self._shared.activity.is_active and not self._pending:
            width = min(width, _ACTIVE_LINES)
            await self._pause()
        elif self._shared.activity.is_active:
            width = 0
        answer = self._lines.refuse if starts > _FAILS_AFTER else self._lines.answer
        while not self._is_stopping and not self._cancelled.is_set():
            room = min(width - len(self._pending), _GROUP_LINES)
            size = sum(pending.size for pending in self._pending)
            read = await asyncio.to_thread(_take, lines, room, _MAX_BYTES - size)
            for data, end in read:
                self._pending.append(_Pending(asyncio.create_task(answer(decode_line(data))), len(data), end))
            if not read:
                break
        return bool(self._pending) and not self._cancelled.is_set()

    async def _pause(self) -> None:
        """Wait until no more requests come, or until some lines are due all the same."""
        due = time.monotonic() + _PAUSE_S
        while self._shared.activity.is_active and time.monotonic() < due and not self._is_stopping:  # noqa: ASYNC110 — no event ends it
            await asyncio.sleep(_CHECK_S)

    async def _wait(self) -> None:
        """Wait for the first line in flight, until the batch is cancelled, or until answers are to be stored."""
        cancelled = asyncio.create_task(self._cancelled.wait())
        timeout_s = _STORE_EVERY_S if self._done else None
        await asyncio.wait({self._pending[0].task, cancelled}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        cancelled.cancel()
        while self._pending and self._pending[0].task.done() and self._done_bytes <= _MAX_BYTES:
            self._done.append(self._pending.popleft())
            self._done_bytes += len(self._done[-1].task.result().data)

    async def _store_done(self) -> None:
        """Append the answers that are done to the output files, and record how far the batch is."""
        done, self._done, self._done_bytes = self._done, [], 0
        if not done:
            return
        answers = [pending.task.result() for pending in done]
        self._is_expired = self._is_expired or any(answer.is_expired for answer in answers)
        progress = self._stored.progress
        batch_id = self._stored.batch.id

        def store_lines(store: Store) -> StoredBatch:
            found = [answer.data for answer in answers if not answer.is_error]
            errors = [answer.data for answer in answers if answer.is_error]
            written = replace(
                progress,
                offset=done[-1].end,
                starts=0,
                output_bytes=store.append(progress.output_id, progress.output_bytes, found),
                error_bytes=store.append(progress.error_id, progress.error_bytes, errors),
            )
            tokens = sum(answer.tokens for answer in answers)
            return store.change_batch(
                batch_id, lambda stored: _advanced(stored, written, len(found), len(errors), tokens)
            )

        self._stored = await self._storage.run(store_lines)
        failed = sum(answer.is_error for answer in answers)
        self._shared.observe(BatchLinesStored(completed=len(answers) - failed, failed=failed))
        self._stored_at = time.monotonic()

    async def _finish(self) -> None:
        """End the batch if all its lines were answered, or won't be."""
        await self._change(lambda stored: stored)  # it may be cancelled
        batch = self._stored.batch
        counts = batch.request_counts
        if batch.status == "cancelling":
            await self._end("cancelled")
        elif self._is_expired and counts.completed + counts.failed == counts.total:
            await self._end("expired")
        elif batch.status == "finalizing" or (
            batch.status == "in_progress" and counts.completed + counts.failed == counts.total
        ):
            await self._change(_finalizing)
            await self._end("completed")

    async def _end(self, status: EndedStatus, *faults: Fault) -> None:
        now, progress = _now(), self._stored.progress
        batch = self._stored.batch
        outputs = [
            File(
                id=file_id,
                bytes=size,
                created_at=now,
                expires_at=now + progress.keep_s,
                filename=f"{batch.id}_{kind}.jsonl",
                purpose="batch_output",
            )
            for kind, file_id, size in (
                ("output", progress.output_id, progress.output_bytes),
                ("error", progress.error_id, progress.error_bytes),
            )
            if size
        ]
        ids = {file.id for file in outputs}
        ended = replace(
            batch,
            status=status,
            errors=Faults([*faults]) if faults else None,
            output_file_id=progress.output_id if progress.output_id in ids else None,
            error_file_id=progress.error_id if progress.error_id in ids else None,
            **{_ENDED_AT[status]: now},
        )
        self._stored = replace(self._stored, batch=ended)
        await self._storage.run(lambda store: store.end_batch(self._stored, outputs))
        self._shared.observe(_ended(ended, status))


def _ended(batch: Batch, status: EndedStatus) -> BatchEnded:
    counts = batch.request_counts
    return BatchEnded(
        id=batch.id,
        endpoint=batch.endpoint,
        status=status,
        created_at=batch.created_at,
        requests=counts.total,
        completed=counts.completed,
        failed=counts.failed,
        tokens=batch.usage.total_tokens,
    )


def _now() -> int:
    return int(time.time())


def _take(lines: Iterator[tuple[bytes, int]], count: int, size: int) -> list[tuple[bytes, int]]:
    """Return up to ``count`` lines of about ``size`` bytes; none if that isn't positive."""
    found: list[tuple[bytes, int]] = []
    while len(found) < count and size > 0 and (line := next(lines, None)):
        found.append(line)
        size -= len(line[0])
    return found


def _check_file(path: Path, endpoint: str, limits: Limits) -> Checked:
    with path.open("rb") as file:
        return check_lines(file, (endpoint,), limits)


def _started(stored: StoredBatch) -> StoredBatch:
    return replace(stored, progress=replace(stored.progress, starts=stored.progress.starts + 1))


def _finalizing(stored: StoredBatch) -> StoredBatch:
    return replace(stored, batch=replace(stored.batch, status="finalizing", finalizing_at=_now()))


def _advanced(stored: StoredBatch, progress: Progress, completed: int, failed: int, tokens: int) -> StoredBatch:
    counts, usage = stored.batch.request_counts, stored.batch.usage
    counts = replace(counts, completed=counts.completed + completed, failed=counts.failed + failed)
    total = usage.total_tokens + tokens
    usage = replace(usage, input_tokens=total, total_tokens=total)
    return replace(stored, progress=progress, batch=replace(stored.batch, request_counts=counts, usage=usage))
