"""Batches from their input to their output files, with blocks of lines that are answered by a stand-in."""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from conftest import until
from msgspec.structs import replace

from nearfar.batches.activity import Activity
from nearfar.batches.answering import LineReply
from nearfar.batches.batch_queue import BatchQueue
from nearfar.batches.lines import InputLine, Limits, LineAnswer
from nearfar.batches.records import ENDED, Batch, File, Progress, StoredBatch
from nearfar.batches.run import BLOCK_LINES, BatchRun, Shared
from nearfar.batches.storage import Storage
from nearfar.batches.store import Store, new_id
from nearfar.core.errors import StorageFull, StorageUnavailable
from nearfar.telemetry.events import BatchLinesStored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from nearfar.core.caller import Caller
    from nearfar.telemetry.events import Event

pytestmark = pytest.mark.anyio

ENDPOINT = "/v1/embeddings"
LIMITS = Limits(10_000, 10_000)


class Server:
    """Answers each line with its own text. ``statuses`` has those of the next answers, by text.

    With more than ``limit`` lines at once, all of them get a 429.
    """

    def __init__(self) -> None:
        self.statuses: dict[str, list[int]] = {}
        self.answered: Counter[str] = Counter()
        self.callers: set[tuple[str, int]] = set()
        self.held: set[str] = set()  # are answered once ``released`` is set
        self.released = asyncio.Event()
        self.slow: set[str] = set()
        self.padding = ""
        self.limit = BLOCK_LINES
        self.blocks: list[int] = []

    async def answer(self, lines: Sequence[InputLine], caller: Caller) -> list[LineReply]:
        assert {line.url for line in lines} == {ENDPOINT}
        self.blocks.append(len(lines))
        texts = [json.loads(bytes(line.body))["input"] for line in lines]
        self.callers.add((caller.name, caller.priority))
        if not self.held.isdisjoint(texts):
            await self.released.wait()
        await asyncio.sleep(0 if self.slow.isdisjoint(texts) else 0.02)
        return [self._answer_one(text, is_refused=len(lines) > self.limit) for text in texts]

    def _answer_one(self, text: str, *, is_refused: bool) -> LineReply:
        status = 429 if is_refused else self.statuses[text].pop(0) if self.statuses.get(text) else 200
        self.answered[text] += status != 429
        return LineReply(
            LineAnswer(status, "req_1", msgspec.Raw(msgspec.json.encode({"text": text, "padding": self.padding}))),
            tokens=3,
        )


class Batches:
    """A store, and what tests do with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = Storage(folder)
        self.server = Server()
        self.events: list[Event] = []
        self.activity = Activity()

    async def add(self, texts: list[str], owner: str = "", window_s: float = 100) -> str:
        lines = [{"custom_id": text, "method": "POST", "url": ENDPOINT, "body": {"input": text}} for text in texts]
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        now = int(time.time())
        file = File(id=new_id("file-"), bytes=len(data), created_at=now, filename="in", purpose="batch")
        (await self.storage.run(lambda store: store.partial(file.id))).write_bytes(data)
        await self.storage.run(lambda store: store.add_file(owner, file))
        batch = Batch(
            id=new_id("batch_"),
            endpoint=ENDPOINT,
            input_file_id=file.id,
            completion_window="24h",
            created_at=now,
            expires_at=int(now + window_s),
        )
        progress = Progress(scopes=("embed",), keep_s=100, output_id=new_id("file-"), error_id=new_id("file-"))
        await self.storage.run(lambda store: store.add_batch(StoredBatch(owner=owner, batch=batch, progress=progress)))
        return batch.id

    async def get(self, batch_id: str, owner: str = "") -> StoredBatch:
        found = await self.storage.run(lambda store: store.batch(owner, batch_id))
        assert found
        return found

    async def wait(self, batch_id: str, condition: Callable[[StoredBatch], bool], owner: str = "") -> Batch:
        async with asyncio.timeout(60):
            while not condition(found := await self.get(batch_id, owner)):  # noqa: ASYNC110 — it is on disk
                await asyncio.sleep(0.02)
        return found.batch

    async def run(self, batch_id: str) -> Batch:
        run = BatchRun(
            Shared(
                storage=self.storage,
                answer=self.server.answer,
                limits=LIMITS,
                activity=self.activity,
                observe=self.events.append,
            ),
            await self.get(batch_id),
        )
        return (await run.run()).batch

    async def crash(self) -> None:
        """Forget all that isn't on disk."""
        await self.storage.close()
        self.storage = Storage(self.folder)

    async def read(self, file_id: str | None) -> list[dict[str, Any]]:
        assert file_id
        data = (await self.storage.run(lambda store: store.path(file_id))).read_bytes()
        assert await self.storage.run(lambda store: store.file("", file_id))
        return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
async def batches(tmp_path: Path) -> AsyncIterator[Batches]:
    found = Batches(tmp_path / "state")
    yield found
    await found.storage.close()


async def test_answers_are_in_the_order_of_the_lines(batches: Batches) -> None:
    texts = [f"text {n}" for n in range(2500)]
    batches.server.slow = {*texts[::7]}

    batch = await batches.run(await batches.add(texts))

    lines = await batches.read(batch.output_file_id)
    assert [line["custom_id"] for line in lines] == texts
    assert [line["response"]["body"]["text"] for line in lines] == texts
    assert len({line["id"] for line in lines}) == 2500
    assert (batch.status, batch.request_counts.completed, batch.usage.total_tokens) == ("completed", 2500, 7500)
    assert batch.error_file_id is None
    assert batches.server.callers == {("", 999)}


async def test_errors_have_a_file_of_their_own(batches: Batches) -> None:
    batches.server.statuses = {"b": [400], "c": [404]}

    batch = await batches.run(await batches.add(["a", "b", "c"]))

    assert [line["custom_id"] for line in await batches.read(batch.output_file_id)] == ["a"]
    errors = await batches.read(batch.error_file_id)
    assert [(line["custom_id"], line["response"]["status_code"]) for line in errors] == [("b", 400), ("c", 404)]
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 2)
    assert batches.events[:1] == [BatchLinesStored(completed=1, failed=2)]


async def test_overload_is_waited_out(batches: Batches) -> None:
    batches.server.statuses = {"a": [429, 503, 429, 504]}

    batch = await batches.run(await batches.add(["a", "b"]))

    assert batch.request_counts.completed == 2
    assert batches.server.answered["b"] == 1


async def test_lines_that_are_too_many_at_once_are_answered_in_smaller_blocks(batches: Batches) -> None:
    batches.server.limit = 20
    texts = [f"text {n}" for n in range(100)]

    batch = await batches.run(await batches.add(texts))

    assert [line["custom_id"] for line in await batches.read(batch.output_file_id)] == texts


async def test_a_batch_with_a_fault_answers_nothing(batches: Batches) -> None:
    batch = await batches.run(await batches.add(["a", "b", "a"]))

    assert (batch.status, batch.errors and batch.errors.data[0].line) == ("failed", 3)
    assert not batches.server.answered
    assert batch.output_file_id is None


async def test_a_batch_with_a_deleted_input_fails(batches: Batches) -> None:
    batch_id = await batches.add(["a"])
    file_id = (await batches.get(batch_id)).batch.input_file_id
    await batches.storage.run(lambda store: store.delete_file("", file_id))

    batch = await batches.run(batch_id)

    assert batch.errors
    assert [fault.code for fault in batch.errors.data] == ["file_not_found"]


async def test_a_batch_that_lost_its_input_in_between_fails(batches: Batches) -> None:
    texts = [f"text {n}" for n in range(BLOCK_LINES + 1)]
    batches.server.held = {texts[-1]}
    batch_id = await batches.add(texts)
    running = asyncio.create_task(batches.run(batch_id))
    await batches.wait(batch_id, lambda stored: stored.progress.offset > 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    file_id = (await batches.get(batch_id)).batch.input_file_id
    await batches.storage.run(lambda store: store.delete_file("", file_id))

    batch = await batches.run(batch_id)

    assert (batch.status, batch.errors and batch.errors.data[0].code) == ("failed", "file_not_found")
    assert [line["custom_id"] for line in await batches.read(batch.output_file_id)] == texts[:BLOCK_LINES]


async def test_a_crash_repeats_no_stored_line_and_leaves_no_torn_one(batches: Batches) -> None:
    texts = [f"text {n}" for n in range(1500)]
    batches.server.held = {texts[1300]}
    batch_id = await batches.add(texts)
    running = asyncio.create_task(batches.run(batch_id))
    await batches.wait(batch_id, lambda stored: stored.progress.offset > 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    stored = await batches.get(batch_id)
    with (await batches.storage.run(lambda store: store.path(stored.progress.output_id))).open("ab") as output:
        output.write(b'{"torn":')  # was written when the process ended
    await batches.crash()
    done = stored.batch.request_counts.completed
    batches.server.held = set()
    batches.server.answered.clear()

    batch = await batches.run(batch_id)

    assert 0 < done < 1500
    assert {*batches.server.answered} == {*texts[done:]}
    assert [line["custom_id"] for line in await batches.read(batch.output_file_id)] == texts
    assert batch.usage.total_tokens == 4500


async def test_a_line_that_ends_the_server_each_time_fails(batches: Batches) -> None:
    batches.server.held = {"d"}
    batch_id = await batches.add([*"abcdef"])
    for _ in range(7):  # twice all at once; then alone, when the first ones are stored; and d again
        running = asyncio.create_task(batches.run(batch_id))
        await asyncio.wait({running}, timeout=0.4)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await batches.crash()

    batch = (await batches.get(batch_id)).batch
    async with asyncio.timeout(10):  # d ends nothing any more
        batch = batch if batch.status in ENDED else await batches.run(batch_id)

    (failed,) = await batches.read(batch.error_file_id)
    assert (failed["custom_id"], failed["response"], failed["error"]["code"]) == ("d", None, "server_error")
    assert [line["custom_id"] for line in await batches.read(batch.output_file_id)] == [*"abcef"]


async def test_while_requests_come_few_lines_are_answered_a_second(batches: Batches) -> None:
    batch_id = await batches.add([f"text {n}" for n in range(300)])
    batches.activity.record()
    began = time.monotonic()
    running = asyncio.create_task(batches.run(batch_id))
    while not batches.server.answered or time.monotonic() - began < 1.5:
        batches.activity.record()
        await asyncio.sleep(0.01)
    answered, elapsed_s = len(batches.server.answered), time.monotonic() - began

    batch = await running

    assert 32 <= answered <= 32 * (1 + elapsed_s)
    assert batch.request_counts.completed == 300


@pytest.mark.parametrize(("passed_s", "blocks"), [(1, [256] * 4), (19, [256] * 4), (20, [1024])])
async def test_blocks_are_short_for_a_while_after_a_request(batches: Batches, passed_s: int, blocks: list[int]) -> None:
    now = 0.0
    batches.activity = Activity(lambda: now)
    batches.activity.record()
    now += passed_s

    await batches.run(await batches.add([f"text {n}" for n in range(1024)]))

    assert batches.server.blocks == blocks


async def test_lines_that_are_late_expire(batches: Batches) -> None:
    batches.server.statuses = {"b": [429] * 100}

    batch = await batches.run(await batches.add(["a", "b", "c"], window_s=2))

    assert batch.status == "expired"
    assert [line["custom_id"] for line in await batches.read(batch.output_file_id)] == ["a", "c"]
    (expired,) = await batches.read(batch.error_file_id)
    assert (expired["custom_id"], expired["error"]["code"]) == ("b", "batch_expired")


async def test_a_cancelled_batch_keeps_its_answers(batches: Batches) -> None:
    texts = [f"text {n}" for n in range(BLOCK_LINES + 9)]
    batches.server.held = {texts[BLOCK_LINES]}
    queue = BatchQueue(batches.storage, batches.server.answer, LIMITS, batches.events.append)
    queue.start()
    batch_id = await batches.add(texts)
    queue.wake()
    await batches.wait(batch_id, lambda stored: stored.progress.offset > 0)

    def cancel(stored: StoredBatch) -> StoredBatch:
        return replace(stored, batch=replace(stored.batch, status="cancelling"))

    await batches.storage.run(lambda store: store.change_batch(batch_id, cancel))
    queue.cancel(batch_id)
    batch = await batches.wait(batch_id, lambda stored: stored.batch.status in ENDED)

    assert batch.status == "cancelled"
    assert [line["custom_id"] for line in await batches.read(batch.output_file_id)] == texts[:BLOCK_LINES]
    await queue.close()


async def test_one_owner_s_batch_doesn_t_wait_for_another_s(batches: Batches) -> None:
    batches.server.held = {"a"}
    queue = BatchQueue(batches.storage, batches.server.answer, LIMITS, batches.events.append)
    first, second = await batches.add(["a"], "one"), await batches.add(["b"], "one")
    other = await batches.add(["c"], "two")
    queue.start()

    await batches.wait(other, lambda stored: stored.batch.status == "completed", "two")

    assert (await batches.get(first, "one")).batch.status == "in_progress"
    assert (await batches.get(second, "one")).batch.status == "validating"
    batches.server.released.set()
    await queue.close()


async def test_a_stop_stores_what_is_in_flight(batches: Batches) -> None:
    texts = [f"text {n}" for n in range(9000)]
    batches.server.slow = {*texts}
    batch_id = await batches.add(texts)
    queue = BatchQueue(batches.storage, batches.server.answer, LIMITS, batches.events.append)
    queue.start()
    await until(lambda: len(batches.server.answered) > 300)

    await queue.close()

    batches.storage = Storage(batches.folder)
    counts = (await batches.get(batch_id)).batch.request_counts
    assert counts.completed == len(batches.server.answered) < 9000


async def test_a_stop_isn_t_counted_as_a_crash(batches: Batches) -> None:
    batches.server.held = {"a"}
    batch_id = await batches.add(["a"])
    queue = BatchQueue(batches.storage, batches.server.answer, LIMITS, batches.events.append)
    queue.start()
    await batches.wait(batch_id, lambda stored: stored.progress.starts == 1)

    await queue.close()

    batches.storage = Storage(batches.folder)
    stored = await batches.get(batch_id)
    assert (stored.batch.status, stored.progress.starts) == ("in_progress", 0)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Limit the size of files: writes beyond it fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_a_full_disk_fails_the_batch_and_keeps_what_is_stored(batches: Batches) -> None:
    batches.server.padding = "a" * 5000
    batch_id = await batches.add([f"text {n}" for n in range(1500)])

    with files_of_at_most(6_000_000):
        batch = await batches.run(batch_id)

    assert batch.errors
    assert (batch.status, batch.errors.data[0].code) == ("failed", "storage_full")
    done = batch.request_counts.completed
    assert len(await batches.read(batch.output_file_id)) == done > 0


class FullDisk:
    """A database that can't be changed while ``is_full`` is true, which gets the values of each change."""

    def __init__(self, database: sqlite3.Connection, is_full: Callable[[Any], bool]) -> None:
        self._database = database
        self._is_full = is_full

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        if sql.lstrip().startswith(("INSERT", "UPDATE", "DELETE")) and self._is_full(values):
            raise sqlite3.OperationalError("database or disk is full")
        return self._database.execute(sql, values)

    def __enter__(self) -> None:
        self._database.__enter__()

    def __exit__(self, *error: object) -> None:
        leave: Any = self._database.__exit__
        leave(*error)


@asynccontextmanager
async def full_disk(batches: Batches, is_full: Callable[[Any], bool]) -> AsyncIterator[None]:
    database = await batches.storage.run(lambda store: store.database)
    full: Any = FullDisk(database, is_full)
    await batches.storage.run(lambda store: setattr(store, "database", full))
    yield
    await batches.storage.run(lambda store: setattr(store, "database", database))


@pytest.mark.parametrize("status", ["in_progress", "finalizing", "completed"])
async def test_on_a_disk_that_is_full_at_a_change_of_status_the_batch_goes_on_later(
    batches: Batches, status: str
) -> None:
    texts = [f"text {n}" for n in range(20)]
    batch_id = await batches.add(texts)
    seen: list[bytes] = []

    def is_full(values: Any) -> bool:
        seen.extend(value for value in values if isinstance(value, bytes) and status.encode() in value)
        return bool(seen)

    async with full_disk(batches, is_full):
        with pytest.raises(StorageFull, match="is full"):
            await batches.run(batch_id)
    batch = await batches.run(batch_id)

    assert (batch.status, batch.request_counts.completed) == ("completed", 20)
    assert texts == [line["custom_id"] for line in await batches.read(batch.output_file_id)]
    assert {*batches.server.answered.values()} == {1}


async def test_answers_that_fill_the_disk_make_room_for_the_batch_s_failure(batches: Batches) -> None:
    batches.server.padding = "a" * 60_000
    batch_id = await batches.add([f"text {n}" for n in range(10)])
    answers_id = (await batches.get(batch_id)).progress.output_id
    answers = await batches.storage.run(lambda store: store.path(answers_id))

    async with full_disk(batches, lambda _: answers.exists() and answers.stat().st_size > 0):
        with files_of_at_most(400_000):
            batch = await batches.run(batch_id)

    assert batch.errors
    assert (batch.status, batch.errors.data[0].code) == ("failed", "storage_full")


async def test_a_file_can_be_deleted_from_a_full_disk(batches: Batches) -> None:
    file_id = (await batches.get(await batches.add(["a"]))).batch.input_file_id
    path = await batches.storage.run(lambda store: store.path(file_id))

    async with full_disk(batches, lambda _: path.stat().st_size > 0):
        assert await batches.storage.run(lambda store: store.delete_file("", file_id))

    assert not await batches.storage.run(lambda store: store.file("", file_id))
    assert not path.exists()


async def test_two_servers_never_share_a_folder(batches: Batches) -> None:
    await batches.add(["a"])
    other = Storage(batches.folder)

    with pytest.raises(StorageUnavailable, match="another server uses the state folder"):
        await other.run(lambda store: store.count_files(""))
    await batches.storage.close()
    assert (await other.run(lambda store: store.count_files("")))[0] == 1
    await other.close()
    batches.storage = Storage(batches.folder)


async def test_a_damaged_database_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "batches.sqlite3").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    storage = Storage(tmp_path)

    with pytest.raises(StorageUnavailable, match="can't be used"):
        await storage.run(lambda store: store.count_files(""))
    await storage.close()


async def test_files_without_a_row_are_removed_at_the_start(batches: Batches) -> None:
    batch_id = await batches.add(["a"])
    stored = await batches.get(batch_id)
    (batches.folder / "files" / "file-1.partial").write_bytes(b"an upload that broke off")
    (batches.folder / "files" / stored.progress.output_id).write_bytes(b"of a batch that runs")
    await batches.crash()

    await batches.storage.run(lambda store: store.count_files(""))

    left = {path.name for path in (batches.folder / "files").iterdir()}
    assert left == {stored.batch.input_file_id, stored.progress.output_id}


async def test_files_expire_but_not_under_a_batch_that_runs(batches: Batches) -> None:
    batch_id = await batches.add(["a"])
    input_id = (await batches.get(batch_id)).batch.input_file_id
    for expires_at in (10, 30):
        file = File(id=new_id("file-"), bytes=0, created_at=1, expires_at=expires_at, filename="x", purpose="batch")
        (batches.folder / "files" / f"{file.id}.partial").write_bytes(b"")
        await batches.storage.run(partial(Store.add_file, owner="", file=file))

    assert await batches.storage.run(lambda store: store.delete_expired(20)) == 1
    assert (await batches.storage.run(lambda store: store.count_files("")))[0] == 2
    assert await batches.storage.run(lambda store: store.file("", input_id))
