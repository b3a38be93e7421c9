"""One batch: its lines are checked, answered many at a time, and stored in their order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from nearfar.batches.activity import Activity
from nearfar.batches.answering import Answered, AnswerLines, LineAnswering
from nearfar.batches.lines import Checked, InputLine, Limits, check_lines, decode_line, read_lines
from nearfar.batches.records import Batch, Fault, Faults, RequestCounts, StoredBatch
from nearfar.batches.storage import Storage
from nearfar.batches.store import Store
from nearfar.core.errors import StorageFull
from nearfar.telemetry.events import BatchEnded, BatchLinesStored, EndedStatus, Observer

# Lines that are answered together, so that many of them have the same length; fewer if they are long. With 256, short
# texts took 8 to 15 % more of the engine. Two blocks at once: one is prepared or stored while the other one runs.
BLOCK_LINES, _BLOCK_BYTES, _BLOCKS = 1024, 400_000, 2
# Fewer where a request may come soon, which what has begun would delay. While requests come, so many lines are
# answered, and then none for so long.
_SHORT_BLOCK_LINES, _ACTIVE_LINES, _PAUSE_S, _CHECK_S = 256, 32, 1.0, 0.02
# How often a batch may be started at one line before lines run alone, and before that line fails.
_ALONE_AFTER, _FAILS_AFTER = 2, 4
_ENDED_AT: dict[EndedStatus, str] = {
    "failed": "failed_at",
    "completed": "completed_at",
    "expired": "expired_at",
    "cancelled": "cancelled_at",
}


class _Block(Struct, frozen=True):
    """Lines that are being answered, and where the next one begins."""

    answers: asyncio.Task[list[Answered]]
    end: int


class Shared(Struct, frozen=True, kw_only=True):
    """What all batches of a server have in common."""

    storage: Storage
    answer: AnswerLines
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
        self._pending: deque[_Block] = deque()
        self._starts = 0  # at the first line
        self._alone = 0  # of the next lines, how many run alone
        self._is_expired = False
        self._is_stopping = False
        self._cancelled = asyncio.Event()

    def stop(self) -> None:
        """Begin no more lines. Those in flight are answered and stored."""
        self._is_stopping = True

    async def record_starts(self, starts: int) -> None:
        """Record how often the batch was started at its next line: 0 after a stop, which is no fault of that line."""
        await self._change(lambda stored: replace(stored, progress=replace(stored.progress, starts=starts)))

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
        self._starts = self._stored.progress.starts + 1
        await self.record_starts(self._starts)
        # One of these lines, which run at once, may be what has ended the server.
        self._alone = _BLOCKS * BLOCK_LINES if self._starts > _ALONE_AFTER else 0
        path = await self._input_path()
        with path.open("rb") as file:
            lines = read_lines(file, self._stored.progress.offset)
            try:
                while await self._fill(lines) and (block := await self._wait()):
                    await self._store(block.answers.result(), block.end)
            finally:
                for block in self._pending:
                    block.answers.cancel()

    async def _fill(self, lines: Iterator[tuple[bytes, int]]) -> bool:
        """Begin blocks while there is room. Return whether any is in flight."""
        while not self._is_stopping and not self._cancelled.is_set():
            is_active = self._shared.activity.is_active
            if len(self._pending) >= (1 if is_active or self._alone else _BLOCKS):
                break
            if is_active:
                await self._pause()
            count = BLOCK_LINES if self._shared.activity.is_idle else _SHORT_BLOCK_LINES
            count = 1 if self._alone else _ACTIVE_LINES if is_active else count
            read, end = await asyncio.to_thread(_read_block, lines, count)
            if not read:
                break
            answer = self._lines.refuse if self._starts > _FAILS_AFTER else self._lines.answer
            self._pending.append(_Block(asyncio.create_task(answer(read)), end))
            self._starts, self._alone = 0, max(self._alone - 1, 0)
        return bool(self._pending)

    async def _pause(self) -> None:
        """Wait until no more requests come, or until some lines are due all the same."""
        due = time.monotonic() + _PAUSE_S
        while self._shared.activity.is_active and time.monotonic() < due and not self._is_stopping:  # noqa: ASYNC110 — no event ends it
            await asyncio.sleep(_CHECK_S)

    async def _wait(self) -> _Block | None:
        """Wait for the first block in flight, and remove it. None if the batch is cancelled before."""
        first, cancelled = self._pending[0], asyncio.create_task(self._cancelled.wait())
        await asyncio.wait({first.answers, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        cancelled.cancel()
        return self._pending.popleft() if first.answers.done() else None

    async def _store(self, answers: Sequence[Answered], end: int) -> None:
        """Append answers to the output files, and record how far the batch is."""
        self._is_expired = self._is_expired or any(answer.is_expired for answer in answers)
        progress = self._stored.progress
        batch_id = self._stored.batch.id
        failed = sum([answer.is_error for answer in answers])
        counts = RequestCounts(completed=len(answers) - failed, failed=failed)
        tokens = sum([answer.reply.tokens for answer in answers if answer.reply])

        def store_lines(store: Store) -> StoredBatch:
            found = (answer.encode() for answer in answers if not answer.is_error)
            errors = (answer.encode() for answer in answers if answer.is_error)
            written = replace(
                progress,
                offset=end,
                starts=0,
                output_bytes=store.append(progress.output_id, progress.output_bytes, found),
                error_bytes=store.append(progress.error_id, progress.error_bytes, errors),
            )
            return store.change_batch(batch_id, lambda stored: stored.advance(written, counts, tokens))

        self._stored = await self._storage.run(store_lines)
        self._shared.observe(BatchLinesStored(completed=counts.completed, failed=counts.failed))

    async def _finish(self) -> None:
        """End the batch if all its lines were answered, or won't be."""
        await self._change(lambda stored: stored)  # it may be cancelled
        batch = self._stored.batch
        is_done = batch.request_counts.is_done
        if batch.status == "cancelling":
            await self._end("cancelled")
        elif self._is_expired and is_done:
            await self._end("expired")
        elif batch.status == "finalizing" or (batch.status == "in_progress" and is_done):
            await self._change(_finalizing)
            await self._end("completed")

    async def _end(self, status: EndedStatus, *faults: Fault) -> None:
        now, progress = _now(), self._stored.progress
        batch = self._stored.batch
        outputs = progress.files(batch.id, now)
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


def _read_block(lines: Iterator[tuple[bytes, int]], count: int) -> tuple[list[InputLine], int]:
    """Return up to ``count`` lines of about ``_BLOCK_BYTES``, and where the next one begins."""
    found: list[InputLine] = []
    size = end = 0
    while len(found) < count and size < _BLOCK_BYTES and (line := next(lines, None)):
        data, end = line
        found.append(decode_line(data))
        size += len(data)
    return found, end


def _check_file(path: Path, endpoint: str, limits: Limits) -> Checked:
    with path.open("rb") as file:
        return check_lines(file, (endpoint,), limits)


def _finalizing(stored: StoredBatch) -> StoredBatch:
    return replace(stored, batch=replace(stored.batch, status="finalizing", finalizing_at=_now()))
