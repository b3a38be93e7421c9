"""OpenAI's uploads over HTTP, with the official client where it can send the request."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import time
from typing import TYPE_CHECKING, Any

import openai
import pytest
from conftest import calling, running

from nearfar import Settings
from nearfar.batches.upload_store import delete_expired_uploads
from nearfar.http.gate.keys import hash_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import httpx
    from litestar import Litestar

    from nearfar.batches.store import Store

pytestmark = pytest.mark.anyio

DATA = b"0123456789"
NEW: dict[str, Any] = {"filename": "in.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
FORM = {"content-type": "multipart/form-data; boundary=b"}
HEAD = b'--b\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"


def md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Server:
    """A running application with two keys."""

    def __init__(self, app: Litestar, http: httpx.AsyncClient, state: Path) -> None:
        self.app = app
        self.http = http
        self.files = state / "files"

    def client(self, key: str = "one") -> openai.AsyncOpenAI:
        http: Any = self.http
        return openai.AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key=key, http_client=http, max_retries=0)

    async def store(self, call: Callable[[Store], Any]) -> Any:
        return await self.app.state.batches.storage.run(call)

    def stored(self) -> set[str]:
        return {path.name for path in self.files.glob("*")}


def settings(folder: Path) -> Settings:
    keys = "".join(f'[[keys]]\nname = "{name}"\nsha256 = "{hash_key(name)}"\n' for name in ("one", "two"))
    (folder / "keys.toml").write_text(keys)
    return Settings(
        engine="fake",
        api_keys_file=str(folder / "keys.toml"),
        state_dir=str(folder / "state"),
        max_body_bytes=5000,
        max_file_bytes=100_000,
        max_stored_bytes=150_000,
        max_stored_files=6,
    )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(settings(tmp_path)) as app, calling(app) as http:
        yield Server(app, http, tmp_path / "state")


async def test_parts_become_a_file_in_the_order_that_is_asked_for(server: Server) -> None:
    client = server.client()
    upload = await client.uploads.create(bytes=10, **NEW)
    last, _, first = [await client.uploads.parts.create(upload.id, data=data) for data in (b"6789", b"?", b"012345")]

    done = await client.uploads.complete(upload.id, part_ids=[first.id, last.id], md5=md5_of(DATA))

    assert (upload.object, upload.status, upload.bytes, upload.file) == ("upload", "pending", 10, None)
    assert (upload.expires_at - upload.created_at, upload.filename, upload.purpose) == (3600, "in.jsonl", "batch")
    assert (first.object, first.upload_id) == ("upload.part", upload.id)
    assert done.file
    assert (done.id, done.status, done.file.bytes) == (upload.id, "completed", 10)
    assert done.file == await client.files.retrieve(done.file.id)
    assert (await client.files.content(done.file.id)).content == DATA
    assert server.stored() == {done.file.id}


async def test_the_client_s_helper_uploads_a_file_for_a_batch(server: Server, tmp_path: Path) -> None:
    client = server.client()
    body = {"model": "text-embedding-3-small", "input": "a"}
    lines = [{"custom_id": str(at), "method": "POST", "url": "/v1/embeddings", "body": body} for at in range(200)]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    md5 = md5_of(path.read_bytes())

    upload = await client.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="batch", part_size=7000, md5=md5
    )

    assert upload.file
    file_id = upload.file.id
    batch = await client.batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h")
    async with asyncio.timeout(60):
        while batch.status != "completed":
            await asyncio.sleep(0.02)
            batch = await client.batches.retrieve(batch.id)
    assert batch.request_counts
    assert batch.request_counts.completed == 200


async def test_a_file_expires_when_its_upload_asked_for_it(server: Server) -> None:
    client = server.client()
    upload = await client.uploads.create(bytes=10, expires_after={"anchor": "created_at", "seconds": 7200}, **NEW)
    part = await client.uploads.parts.create(upload.id, data=DATA)

    file = (await client.uploads.complete(upload.id, part_ids=[part.id])).file

    assert file
    assert file.expires_at == file.created_at + 7200


async def test_another_key_s_uploads_and_parts_don_t_exist(server: Server) -> None:
    client, other = server.client(), server.client("two")
    upload = await client.uploads.create(bytes=10, **NEW)
    part = await client.uploads.parts.create(upload.id, data=DATA)
    own = await other.uploads.create(bytes=10, **NEW)

    for call in (
        other.uploads.parts.create(upload.id, data=DATA),
        other.uploads.complete(upload.id, part_ids=[part.id]),
        other.uploads.cancel(upload.id),
        other.uploads.complete(own.id, part_ids=[part.id]),
    ):
        with pytest.raises(openai.NotFoundError, match="No such Upload"):
            await call
    assert (await client.uploads.complete(upload.id, part_ids=[part.id])).status == "completed"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": -1}, "bytes"),
        ({"bytes": None}, "bytes"),
        ({"purpose": "vision"}, "purpose"),
        ({"mime_type": None}, "mime_type"),
        ({"filename": 1}, "filename"),
        ({"filename": "a\nb"}, "filename"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after"),
    ],
)
async def test_an_upload_that_isn_t_allowed_is_refused(server: Server, change: Any, word: str) -> None:
    headers = {"authorization": "Bearer one"}

    response = await server.http.post("/v1/uploads", json={"bytes": 10, **NEW} | change, headers=headers)

    assert (response.status_code, [*response.json()["error"]]) == (400, ["message", "type", "param", "code"])
    assert word in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ([b"0123", b"4567"], "8 bytes together"),
        ([b"0123456789", b"0"], "11 bytes together"),
        ([b"5678901234"], "MD5"),
        ([b"56789", b"01234"], "MD5"),
    ],
)
async def test_other_bytes_than_announced_complete_nothing(server: Server, data: list[bytes], word: str) -> None:
    client = server.client()
    upload = await client.uploads.create(bytes=10, **NEW)
    ids = [(await client.uploads.parts.create(upload.id, data=part)).id for part in data]

    with pytest.raises(openai.BadRequestError, match=word):
        await client.uploads.complete(upload.id, part_ids=ids, md5=md5_of(DATA))

    assert server.stored() == {*ids}
    right = await client.uploads.parts.create(upload.id, data=DATA)
    assert (await client.uploads.complete(upload.id, part_ids=[right.id])).status == "completed"


async def test_parts_that_aren_t_of_the_upload_complete_nothing(server: Server) -> None:
    client = server.client()
    upload, other = [await client.uploads.create(bytes=10, **NEW) for _ in range(2)]
    half, foreign = [await client.uploads.parts.create(one.id, data=b"01234") for one in (upload, other)]

    for ids, status in (
        ([half.id, foreign.id], 404),
        ([half.id, "part_none"], 404),
        ([half.id, "../keys.toml"], 404),
        ([half.id, half.id], 400),
        ([], 400),
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.uploads.complete(upload.id, part_ids=ids)
        assert caught.value.status_code == status
    assert server.stored() == {half.id, foreign.id}


async def test_what_has_ended_takes_no_more_parts(server: Server) -> None:
    client = server.client()
    completed, cancelled = [await client.uploads.create(bytes=10, **NEW) for _ in range(2)]
    parts = [await client.uploads.parts.create(one.id, data=DATA) for one in (completed, cancelled)]
    done = await client.uploads.complete(completed.id, part_ids=[parts[0].id])
    assert (await client.uploads.cancel(cancelled.id)).status == "cancelled"

    for call in (
        client.uploads.parts.create(completed.id, data=DATA),
        client.uploads.cancel(completed.id),
        client.uploads.complete(completed.id, part_ids=["part_other"]),
        client.uploads.parts.create(cancelled.id, data=DATA),
        client.uploads.complete(cancelled.id, part_ids=[parts[1].id]),
    ):
        with pytest.raises(openai.BadRequestError, match="with status 'c"):
            await call
    assert done.file
    assert server.stored() == {done.file.id}
    assert await client.uploads.complete(completed.id, part_ids=[parts[0].id]) == done
    assert (await client.uploads.cancel(cancelled.id)).status == "cancelled"


async def test_an_upload_is_completed_once_however_often_at_a_time(server: Server) -> None:
    client = server.client()
    upload = await client.uploads.create(bytes=10, **NEW)
    part = await client.uploads.parts.create(upload.id, data=DATA)

    done = await asyncio.gather(*(client.uploads.complete(upload.id, part_ids=[part.id]) for _ in range(5)))

    files = [file.id async for file in client.files.list()]
    assert {each.file.id for each in done if each.file} == {*files} == server.stored()
    assert len(files) == 1


HOSTILE: dict[str, tuple[bytes, dict[str, str], int]] = {
    "no end": (HEAD + b"a" * 100, FORM, 400),
    "no part": (b"--b--\r\n", FORM, 400),
    "an empty part": (HEAD + TAIL, FORM, 400),
    "another name": (HEAD.replace(b'"data"', b'"file"') + b"a" + TAIL, FORM, 400),
    "two parts": (HEAD + b"a\r\n" + HEAD + b"b" + TAIL, FORM, 400),
    "large headers": (b"--b\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", FORM, 400),
    "no boundary": (HEAD + b"a" + TAIL, {"content-type": "multipart/form-data"}, 400),
    "JSON": (b'{"data": "a"}', {"content-type": "application/json"}, 400),
    "too large": (HEAD + b"a" * 150_001 + TAIL, FORM, 413),
    "nothing": (b"", FORM, 400),
}


async def test_a_file_that_is_too_large_is_read_to_its_end(server: Server) -> None:
    """A connection with unread bytes ends, and with it the next request that its client sends."""
    read = []

    async def body() -> AsyncIterator[bytes]:
        yield HEAD.replace(b'"data"', b'"file"')
        for at in range(5):
            yield b"a" * 60_000
            read.append(at)

    response = await server.http.post("/v1/files", content=body(), headers=FORM | {"authorization": "Bearer one"})

    assert (response.status_code, len(read)) == (413, 5)


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_part_is_refused_and_leaves_nothing(server: Server, name: str) -> None:
    data, headers, status = HOSTILE[name]
    upload = await server.client().uploads.create(bytes=10, **NEW)
    path = f"/v1/uploads/{upload.id}/parts"

    response = await server.http.post(path, content=data, headers=headers | {"authorization": "Bearer one"})

    assert (response.status_code, [*response.json()["error"]]) == (status, ["message", "type", "param", "code"])
    assert server.stored() == set()


async def test_uploads_and_parts_count_as_files(server: Server) -> None:
    client = server.client()
    for _ in range(2):
        await client.uploads.create(bytes=70_000, **NEW)

    with pytest.raises(openai.APIStatusError, match="10,000 bytes"):
        await client.uploads.create(bytes=10_001, **NEW)
    with pytest.raises(openai.APIStatusError, match="10,000 bytes"):
        await client.files.create(file=("a", b"a" * 10_001), purpose="batch")
    small = await client.uploads.create(bytes=10_000, **NEW)
    for _ in range(3):
        await client.uploads.parts.create(small.id, data=b"a")
    with pytest.raises(openai.BadRequestError, match="6 or less"):
        await client.uploads.parts.create(small.id, data=b"a")
    await client.uploads.cancel(small.id)
    await client.files.create(file=("a", b"a" * 10_000), purpose="batch")
    with pytest.raises(openai.APIStatusError, match="100,000 bytes"):
        await server.client("two").uploads.create(bytes=100_001, **NEW)


async def test_a_part_is_at_most_what_is_left_for_its_key(server: Server) -> None:
    client = server.client()
    upload = await client.uploads.create(bytes=100_000, **NEW)
    await client.uploads.parts.create(upload.id, data=b"a" * 90_000)
    await client.uploads.parts.create(upload.id, data=b"b" * 50_000)

    with pytest.raises(openai.APIStatusError, match="10,000 bytes"):
        await client.uploads.parts.create(upload.id, data=b"c" * 10_001)


async def test_an_expired_upload_is_removed(server: Server) -> None:
    client = server.client()
    upload = await client.uploads.create(bytes=10, **NEW)
    part = await client.uploads.parts.create(upload.id, data=DATA)

    await server.store(lambda store: _expire(store, upload.id))
    for call in (
        client.uploads.parts.create(upload.id, data=DATA),
        client.uploads.complete(upload.id, part_ids=[part.id]),
        client.uploads.cancel(upload.id),
    ):
        with pytest.raises(openai.BadRequestError, match="with status 'expired'"):
            await call
    assert server.stored() == {part.id}
    now = int(time.time())
    await server.store(lambda store: delete_expired_uploads(store, now))

    assert server.stored() == set()
    assert await server.store(lambda store: store.count_files("one")) == (0, 0)
    with pytest.raises(openai.BadRequestError, match="with status 'expired'"):
        await client.uploads.complete(upload.id, part_ids=[part.id])
    await server.store(lambda store: delete_expired_uploads(store, now + 3600))
    with pytest.raises(openai.NotFoundError):
        await client.uploads.cancel(upload.id)


async def test_the_server_removes_expired_uploads_itself(tmp_path: Path) -> None:
    async with running(settings(tmp_path)) as app, calling(app) as http:
        server = Server(app, http, tmp_path / "state")
        upload = await server.client().uploads.create(bytes=10, **NEW)
        await server.client().uploads.parts.create(upload.id, data=DATA)
        await server.store(lambda store: _expire(store, upload.id))

        app.state.batches.wake()

        async with asyncio.timeout(10):
            while server.stored():  # noqa: ASYNC110 — it is on disk
                await asyncio.sleep(0.01)


def _expire(store: Store, upload_id: str) -> None:
    """Change an upload as if it had been created an hour ago."""
    now = int(time.time())
    (record,) = store.database.execute("SELECT record FROM uploads WHERE id = ?", (upload_id,)).fetchone()
    stored = json.loads(record)
    stored["upload"]["expires_at"] = now
    with store.database:
        sql = "UPDATE uploads SET expires_at = ?, record = ? WHERE id = ?"
        store.database.execute(sql, (now, json.dumps(stored).encode(), upload_id))


async def test_an_upload_outlives_a_restart_and_what_broke_off_doesn_t(tmp_path: Path) -> None:
    async with running(settings(tmp_path)) as app, calling(app) as http:
        client = Server(app, http, tmp_path / "state").client()
        upload = await client.uploads.create(bytes=10, **NEW)
        part = await client.uploads.parts.create(upload.id, data=DATA[:5])
    (tmp_path / "state" / "files" / "part_1.partial").write_bytes(b"of a part that broke off")
    (tmp_path / "state" / "files" / "part_2").write_bytes(b"of an upload that was completed")
    (tmp_path / "state" / "files" / "file-1.partial").write_bytes(b"of parts that were being joined")

    async with running(settings(tmp_path)) as app, calling(app) as http:
        server = Server(app, http, tmp_path / "state")
        client = server.client()
        other = await client.uploads.parts.create(upload.id, data=DATA[5:])
        left = server.stored()
        done = await client.uploads.complete(upload.id, part_ids=[part.id, other.id])
        assert done.file
        content = (await client.files.content(done.file.id)).content

    assert (left, content) == ({part.id, other.id}, DATA)


async def _file(client: openai.AsyncOpenAI, _: str, data: bytes) -> Any:
    return await client.files.create(file=("a", data), purpose="batch")


async def _part(client: openai.AsyncOpenAI, upload_id: str, data: bytes) -> Any:
    return await client.uploads.parts.create(upload_id, data=data)


@pytest.mark.parametrize("call", [_file, _part])
async def test_a_full_disk_refuses_a_file_and_a_part(server: Server, call: Callable[..., Awaitable[Any]]) -> None:
    client = server.client()
    upload = await client.uploads.create(bytes=80_000, **NEW)

    with pytest.raises(openai.APIStatusError, match="is full") as caught:
        await _on_a_full_disk(call(client, upload.id, b"a" * 60_000))

    assert (caught.value.status_code, server.stored()) == (507, set())
    await call(client, upload.id, b"a" * 60_000)


async def test_a_full_disk_completes_nothing(server: Server) -> None:
    client = server.client()
    upload = await client.uploads.create(bytes=80_000, **NEW)
    ids = [(await client.uploads.parts.create(upload.id, data=b"a" * 40_000)).id for _ in range(2)]

    with pytest.raises(openai.APIStatusError, match="is full") as caught:
        await _on_a_full_disk(client.uploads.complete(upload.id, part_ids=ids))

    assert (caught.value.status_code, server.stored()) == (507, {*ids})
    assert (await client.uploads.complete(upload.id, part_ids=ids)).status == "completed"


async def _on_a_full_disk(call: Awaitable[Any]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # a write beyond it fails like a full disk
    try:
        await call
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_a_part_that_arrives_after_its_upload_was_cancelled_is_dropped(server: Server) -> None:
    client = server.client()
    upload = await client.uploads.create(bytes=10, **NEW)
    began, is_cancelled = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield HEAD
        began.set()
        await is_cancelled.wait()
        yield DATA + TAIL

    headers = FORM | {"authorization": "Bearer one"}
    sent = asyncio.create_task(server.http.post(f"/v1/uploads/{upload.id}/parts", content=body(), headers=headers))
    await began.wait()
    await client.uploads.cancel(upload.id)
    is_cancelled.set()
    response = await sent

    assert (response.status_code, "with status 'cancelled'" in response.text) == (400, True)
    assert server.stored() == set()


@pytest.mark.parametrize(
    ("part", "count", "size", "stored"),
    [("file", 5, 60_000, 2), ("file", 8, 10, 5), ("data", 5, 70_000, 2), ("data", 8, 10, 5)],
)
async def test_what_arrives_at_the_same_time_is_never_more_than_a_key_may_store(
    server: Server, part: str, count: int, size: int, stored: int
) -> None:
    upload = await server.client().uploads.create(bytes=10, **NEW)
    path = "/v1/files" if part == "file" else f"/v1/uploads/{upload.id}/parts"
    purpose = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n' if part == "file" else b""
    began, last_began = 0, asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        nonlocal began
        yield purpose + HEAD.replace(b'"data"', f'"{part}"'.encode())
        began += 1
        if began == count:
            last_began.set()
        await last_began.wait()
        yield b"a" * size + TAIL

    headers = FORM | {"authorization": "Bearer one"}
    sent = [server.http.post(path, content=body(), headers=headers) for _ in range(count)]
    statuses = sorted([response.status_code for response in await asyncio.gather(*sent)])

    refused = 400 if size == len(DATA) else 413  # too many files, or too many bytes
    assert statuses == [200] * stored + [refused] * (count - stored)
    assert len(server.stored()) == stored
