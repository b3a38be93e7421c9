"""OpenAI's files and batches over HTTP, with the official client where it can send the request."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from conftest import calling, running

from nearfar import Settings
from nearfar.http.gate.keys import hash_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

MODEL = "text-embedding-3-small"
KEYS = 100


def lines(url: str, *bodies: Any) -> bytes:
    requests = [{"custom_id": str(at), "method": "POST", "url": url, "body": body} for at, body in enumerate(bodies)]
    return "\n".join(map(json.dumps, requests)).encode()


class Server:
    """A running application, and keys that no test has used yet."""

    def __init__(self, http: httpx.AsyncClient, state: Path) -> None:
        self.http = http
        self.state = state
        self._names = (f"key-{at}" for at in range(KEYS))

    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {next(self._names)}"}

    def client(self, key: str = "") -> openai.AsyncOpenAI:
        http: Any = self.http
        url = f"{self.http.base_url}/v1"
        return openai.AsyncOpenAI(base_url=url, api_key=key or next(self._names), http_client=http, max_retries=0)


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("batches")
    file = folder / "keys.toml"
    scopes = {f"key-{at}": ["embed", "rerank"] for at in range(KEYS)} | {"embeds": ["embed"], "boss": ["admin"]}
    file.write_text(
        "".join(
            f'[[keys]]\nname = "{name}"\nsha256 = "{hash_key(name)}"\nscopes = {json.dumps(scope)}\n'
            for name, scope in scopes.items()
        )
    )
    settings = Settings(
        engine="fake",
        api_keys_file=str(file),
        state_dir=str(folder / "state"),
        max_file_bytes=5000,
        max_stored_bytes=12_000,
        max_stored_files=6,
    )
    async with running(settings) as app, calling(app) as client:
        yield Server(client, folder / "state")


async def finish(client: openai.AsyncOpenAI, data: bytes, endpoint: Any = "/v1/embeddings") -> Any:
    file = await client.files.create(file=("../../in.jsonl", data), purpose="batch")
    batch = await client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    async with asyncio.timeout(60):
        while batch.status not in {"completed", "failed", "expired", "cancelled"}:
            await asyncio.sleep(0.02)
            batch = await client.batches.retrieve(batch.id)
    return batch


async def read(client: openai.AsyncOpenAI, file_id: str) -> list[dict[str, Any]]:
    content = await client.files.content(file_id)
    return [json.loads(line) for line in content.text.splitlines()]


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/embeddings", {"model": MODEL, "input": ["a", "b"]}),
        ("/v1/rerank", {"query": "a", "documents": ["b", "c"]}),
        ("/v2/rerank", {"model": "rerank-v3.5", "query": "a", "documents": ["b", "c"]}),
        ("/v1/embed", {"texts": ["a"], "input_type": "search_query"}),
        ("/v2/embed", {"model": "embed-v4.0", "texts": ["a"], "input_type": "search_query"}),
        ("/v1/score", {"text_1": "a", "text_2": ["b", "c"]}),
    ],
)
async def test_answers_equal_those_of_direct_calls(server: Server, endpoint: str, body: Any) -> None:
    client = server.client()

    batch = await finish(client, lines(endpoint, body), endpoint)

    (line,) = await read(client, batch.output_file_id)
    direct = (await server.http.post(endpoint, json=body, headers=server.headers())).json()
    answer = line["response"]["body"]
    changing = {"id", "created"}
    assert {name: answer[name] for name in answer if name not in changing} == {
        name: direct[name] for name in direct if name not in changing
    }
    assert line["response"]["status_code"] == 200
    assert line["error"] is None


async def test_a_line_s_error_is_that_of_a_direct_call(server: Server) -> None:
    client, body = server.client(), {"model": "unknown", "input": "a"}

    batch = await finish(client, lines("/v1/embeddings", body, {"model": MODEL, "input": "a"}))

    (line,) = await read(client, batch.error_file_id)
    direct = await server.http.post("/v1/embeddings", json=body, headers=server.headers())
    assert (line["response"]["status_code"], line["response"]["body"]) == (direct.status_code, direct.json())
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 1, 1)


async def test_each_line_of_many_is_answered_as_a_direct_call(server: Server) -> None:
    client = server.client()
    bodies: list[dict[str, Any]] = [
        {"model": MODEL, "input": "a"},
        {"model": MODEL, "input": ""},
        {"model": MODEL, "input": ["b", "boom"]},  # the engine fails on it
        {"model": "unknown", "input": "a"},
        {"model": MODEL, "input": 5},
        {"model": MODEL, "input": "c", "dimensions": 3, "encoding_format": "base64"},
        {"model": "jina-embeddings-v3", "input": ["d"], "task": "text-matching"},
        {"model": MODEL, "input": [[15339], [1917]], "encoding_format": "float"},
        {"model": MODEL, "input": "e", "dimensions": 100_000},
    ]

    batch = await finish(client, lines("/v1/embeddings", *bodies))

    answers = await read(client, batch.output_file_id) + await read(client, batch.error_file_id)
    found = {int(line["custom_id"]): line["response"] for line in answers}
    for at, body in enumerate(bodies):
        direct = await server.http.post("/v1/embeddings", json=body, headers=server.headers())
        assert (found[at]["status_code"], found[at]["body"]) == (direct.status_code, direct.json())
    assert [found[at]["status_code"] for at in range(len(bodies))] == [200, 400, 500, 404, 400, 200, 200, 200, 400]


async def test_a_line_that_asks_for_bytes_is_refused(server: Server) -> None:
    client = server.client()
    body = {"model": MODEL, "input": "a", "encoding_format": "bytes"}

    batch = await finish(client, lines("/v1/embeddings", body, {"model": MODEL, "input": "a"}))

    (line,) = await read(client, batch.error_file_id)
    assert (line["custom_id"], line["response"]["status_code"]) == ("0", 400)
    assert "no binary answer" in line["response"]["body"]["error"]["message"]
    assert batch.request_counts.completed == 1


async def test_a_line_needs_the_scopes_of_its_batch_s_key(server: Server) -> None:
    client = server.client("embeds")

    batch = await finish(client, lines("/v1/rerank", {"query": "a", "documents": ["b"]}), "/v1/rerank")

    (line,) = await read(client, batch.error_file_id)
    assert line["response"]["status_code"] == 403


async def test_another_key_s_files_and_batches_don_t_exist(server: Server) -> None:
    client, other = server.client(), server.client()
    batch = await finish(client, lines("/v1/embeddings", {"model": MODEL, "input": "a"}))

    for call in (
        other.files.retrieve(batch.input_file_id),
        other.files.content(batch.output_file_id),
        other.files.delete(batch.input_file_id),
        other.batches.retrieve(batch.id),
        other.batches.cancel(batch.id),
        other.batches.create(input_file_id=batch.input_file_id, endpoint="/v1/embeddings", completion_window="24h"),
    ):
        with pytest.raises(openai.NotFoundError, match="No such"):
            await call
    assert not (await other.files.list()).data
    assert not (await other.batches.list()).data
    with pytest.raises(openai.PermissionDeniedError):
        await server.client("boss").files.list()


async def test_files_are_listed_in_pages(server: Server) -> None:
    client = server.client()
    ids = [(await client.files.create(file=(f"{at}.jsonl", b"{}"), purpose="batch")).id for at in range(5)]

    newest_first = [file.id async for file in client.files.list(limit=2)]
    oldest_first = [file.id async for file in client.files.list(limit=2, order="asc")]

    assert newest_first == ids[::-1]
    assert oldest_first == ids
    assert not (await client.files.list(purpose="batch_output")).data


async def test_a_file_can_be_read_in_part_and_deleted(server: Server) -> None:
    client = server.client()
    key = {"authorization": f"Bearer {client.api_key}"}
    file = await client.files.create(file=("a.txt", b"0123456789"), purpose="batch")
    path = f"/v1/files/{file.id}/content"

    parts = {
        value: await server.http.get(path, headers=key | {"range": value})
        for value in ("bytes=2-4", "bytes=7-", "bytes=-3", "bytes=20-", "bytes=0-99", "lines=1-2")
    }

    assert [(part.status_code, part.content) for part in parts.values()] == [
        (206, b"234"),
        (206, b"789"),
        (206, b"789"),
        (200, b"0123456789"),
        (200, b"0123456789"),
        (200, b"0123456789"),
    ]
    assert parts["bytes=2-4"].headers["content-range"] == "bytes 2-4/10"
    assert (await client.files.delete(file.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.content(file.id)


async def test_a_file_s_name_is_never_a_path(server: Server) -> None:
    client = server.client()

    file = await client.files.create(file=("../../../etc/passwd", b"x"), purpose="batch")

    assert file.filename == "../../../etc/passwd"
    assert (await client.files.content(file.id)).content == b"x"


HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
PURPOSE = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FORM = {"content-type": "multipart/form-data; boundary=b"}
HOSTILE: dict[str, tuple[bytes, dict[str, str], int]] = {
    "no end": (PURPOSE + HEAD + b"a" * 100, FORM, 400),
    "no file": (PURPOSE + b"--b--\r\n", FORM, 400),
    "no purpose": (HEAD + b"a\r\n--b--\r\n", FORM, 400),
    "another purpose": (PURPOSE.replace(b"batch", b"vision") + HEAD + b"a\r\n--b--\r\n", FORM, 400),
    "large headers": (b"--b\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n", FORM, 400),
    "many parts": (PURPOSE * 100 + HEAD + b"a\r\n--b--\r\n", FORM, 400),
    "a long field": (PURPOSE.replace(b"batch", b"b" * 10_000) + HEAD + b"a\r\n--b--\r\n", FORM, 413),
    "a large file": (PURPOSE + HEAD + b"\0" * 6000 + b"\r\n--b--\r\n", FORM, 413),
    "no boundary": (PURPOSE + HEAD + b"a\r\n--b--\r\n", {"content-type": "multipart/form-data"}, 400),
    "JSON": (b'{"file": "a"}', {"content-type": "application/json"}, 400),
    "two files": (PURPOSE + HEAD + b"a\r\n" + HEAD + b"b\r\n--b--\r\n", FORM, 400),
    "a line break in the name": (PURPOSE + HEAD.replace(b'"a"', b'"a%0Ab"') + b"a\r\n--b--\r\n", FORM, 400),
    "a zero in the name": (PURPOSE + HEAD.replace(b'"a"', b'"a\0b"') + b"a\r\n--b--\r\n", FORM, 400),
    "a name in latin-1": (PURPOSE + HEAD.replace(b'"a"', b'"\xe9"') + b"a\r\n--b--\r\n", FORM, 400),
    "another boundary": (PURPOSE + HEAD + b"a\r\n--b--\r\n", {"content-type": "multipart/form-data; boundary=c"}, 400),
    "zeros": (b"\0" * 4000, FORM, 400),
    "nothing": (b"", FORM, 400),
    "expires too soon": (
        PURPOSE
        + b'--b\r\nContent-Disposition: form-data; name="expires_after[seconds]"\r\n\r\n1\r\n'
        + HEAD
        + b"a\r\n--b--\r\n",
        FORM,
        400,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_form_is_refused_and_leaves_nothing(server: Server, name: str) -> None:
    data, headers, status = HOSTILE[name]
    before = {*(server.state / "files").glob("*")}

    response = await server.http.post("/v1/files", content=data, headers=headers | server.headers())

    assert (response.status_code, [*response.json()["error"]]) == (status, ["message", "type", "param", "code"])
    assert "JSON" not in response.text
    assert {*(server.state / "files").glob("*")} == before


async def test_a_key_has_room_for_so_many_files_and_bytes(server: Server) -> None:
    client = server.client()
    for _ in range(2):
        await client.files.create(file=("a", b"a" * 5000), purpose="batch")

    with pytest.raises(openai.APIStatusError, match="2,000 bytes"):
        await client.files.create(file=("a", b"a" * 2001), purpose="batch")
    for _ in range(4):
        await client.files.create(file=("a", b"a"), purpose="batch")
    with pytest.raises(openai.BadRequestError):
        await client.files.create(file=("a", b"a"), purpose="batch")
    await server.client().files.create(file=("a", b"a"), purpose="batch")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"completion_window": "forever"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"endpoint": "/v1/chat/completions"}, "endpoint"),
        ({"metadata": {str(at): "a" for at in range(17)}}, "metadata"),
        ({"metadata": {"a": "b" * 513}}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after"),
        ({"input_file_id": None}, "input_file_id"),
    ],
)
async def test_a_batch_that_isn_t_allowed_is_refused(server: Server, body: Any, word: str) -> None:
    client = server.client()
    file = await client.files.create(file=("a", b"{}"), purpose="batch")
    good = {"input_file_id": file.id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    headers = {"authorization": f"Bearer {client.api_key}"}

    response = await server.http.post("/v1/batches", json=good | body, headers=headers)

    assert (response.status_code, word in response.json()["error"]["message"]) == (400, True)


async def test_a_batch_that_has_ended_can_t_be_cancelled(server: Server) -> None:
    client = server.client()
    batch = await finish(client, lines("/v1/embeddings", {"model": MODEL, "input": "a"}))

    with pytest.raises(openai.BadRequestError, match="Cannot cancel a batch with status 'completed'"):
        await client.batches.cancel(batch.id)


async def test_without_a_state_folder_the_rest_serves(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, no folder")
    settings = Settings(engine="fake", state_dir=str(tmp_path / "state"))
    async with running(settings) as app, calling(app) as client:
        refused = await client.get("/v1/files")
        served = await client.post("/v1/embeddings", json={"model": MODEL, "input": "a"})

    assert (refused.status_code, served.status_code) == (503, 200)
    assert "state folder" in refused.json()["error"]["message"]
