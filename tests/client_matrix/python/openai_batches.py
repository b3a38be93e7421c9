"""Files, uploads and batches with the openai client, in two major versions."""

import asyncio
import hashlib
import json
import secrets
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from matrix import KEY, PASSAGES, QUERY, TEXTS, URL, call

BODIES: dict[str, list[Any]] = {
    "/v1/embeddings": [
        {"model": "text-embedding-3-small", "input": TEXTS, "dimensions": 64},
        {"model": "text-embedding-3-small", "input": "a cat", "encoding_format": "base64"},
    ],
    "/v2/rerank": [{"model": "rerank-v3.5", "query": QUERY, "documents": PASSAGES}],
}
CHANGING = {"id", "created"}
ENDED = {"completed", "failed", "expired", "cancelled"}


def _client() -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY)


def _asynchronous() -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY)


def _input(endpoint: str, copies: int = 1) -> bytes:
    lines = [
        {"custom_id": f"{copy}-{at}", "method": "POST", "url": endpoint, "body": body}
        for copy in range(copies)
        for at, body in enumerate(BODIES[endpoint])
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def _assert_answers(endpoint: str, output: str) -> None:
    """Compare each answer with that of a plain HTTP request, value by value."""
    answers = {line["custom_id"]: line["response"] for line in map(json.loads, output.splitlines())}
    assert len(answers) == len(BODIES[endpoint])
    for at, body in enumerate(BODIES[endpoint]):
        found = answers[f"0-{at}"]
        direct = call(endpoint, body)
        assert found["status_code"] == 200
        assert _stable(found["body"]) == _stable(direct)


def _stable(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in CHANGING}


@pytest.mark.parametrize("endpoint", BODIES)
def test_other_batches_answer_as_direct_calls(endpoint: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(_input(endpoint))
    with _client() as client:
        file = client.files.create(file=tmp_path / "in.jsonl", purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"a": "b"}
        )
        while batch.status not in ENDED:
            time.sleep(0.1)
            batch = client.batches.retrieve(batch.id)
        content = client.files.content(batch.output_file_id)
        content.write_to_file(tmp_path / "out.jsonl")
        with client.files.with_streaming_response.content(batch.output_file_id) as streamed:
            streamed.stream_to_file(tmp_path / "streamed.jsonl")

    assert (batch.status, batch.errors, batch.error_file_id, batch.metadata) == ("completed", None, None, {"a": "b"})
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(BODIES[endpoint]), 0)
    assert content.text == (tmp_path / "out.jsonl").read_text() == (tmp_path / "streamed.jsonl").read_text()
    _assert_answers(endpoint, content.text)


@pytest.mark.parametrize("endpoint", BODIES)
def test_other_batches_of_the_asynchronous_client(endpoint: Any) -> None:
    async def run() -> str:
        async with _asynchronous() as client:
            data = _input(endpoint)
            upload = await client.uploads.upload_file_chunked(
                file=data,
                filename="in.jsonl",
                bytes=len(data),
                mime_type="application/jsonl",
                purpose="batch",
                part_size=100,
                md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
            )
            batch = await client.batches.create(
                input_file_id=upload.file.id, endpoint=endpoint, completion_window="24h"
            )
            while batch.status not in ENDED:
                await asyncio.sleep(0.1)
                batch = await client.batches.retrieve(batch.id)
            assert batch.id in [each.id async for each in client.batches.list(limit=2)]
            return (await client.files.content(batch.output_file_id)).text

    _assert_answers(endpoint, asyncio.run(run()))


def test_other_batches_are_listed_page_by_page_and_cancelled() -> None:
    with _client() as client:
        file = client.files.create(file=("in.jsonl", _input("/v1/embeddings", 2000)), purpose="batch")
        batches = [
            client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
            for _ in range(3)
        ]
        listed = [batch.id for batch in client.batches.list(limit=2)]
        cancelled = [client.batches.cancel(batch.id) for batch in batches[1:]]
        client.batches.cancel(batches[0].id)
        for batch in batches:
            while client.batches.retrieve(batch.id).status not in ENDED:
                time.sleep(0.1)
        with pytest.raises(openai.NotFoundError, match="No such Batch"):
            client.batches.retrieve("batch_none")

    assert listed[:3] == [batch.id for batch in reversed(batches)]
    assert len(listed) == len({*listed})
    assert {batch.status for batch in cancelled} <= {"cancelling", "cancelled"}


def test_other_files_are_listed_read_in_part_and_deleted() -> None:
    with _client() as client:
        ids = [client.files.create(file=(f"{at}.jsonl", b"0123456789"), purpose="batch").id for at in range(5)]
        listed = [file.id for file in client.files.list(limit=2, order="desc", purpose="batch")]
        raw = client.files.with_raw_response.content(ids[0], extra_headers={"range": "bytes=2-4"})
        described = client.files.with_raw_response.retrieve(ids[0])
        assert client.files.wait_for_processing(ids[0]).status == "processed"
        assert [client.files.delete(each).deleted for each in ids] == [True] * 5
        with pytest.raises(openai.NotFoundError, match="No such File") as caught:
            client.files.content(ids[0])

    assert listed[:5] == ids[::-1]
    assert (raw.http_response.status_code, raw.content) == (206, b"234")
    assert raw.headers["content-range"] == "bytes 2-4/10"
    assert described.headers["x-request-id"] == described.request_id
    assert (described.parse().filename, described.parse().bytes) == ("0.jsonl", 10)
    assert caught.value.status_code == 404


def test_other_uploads_are_completed_in_order_and_cancelled(tmp_path: Path) -> None:
    data = secrets.token_bytes(100_000)
    (tmp_path / "in.jsonl").write_bytes(data)
    new: Any = {"filename": "in.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    with _client() as client:
        whole = client.uploads.upload_file_chunked(
            file=tmp_path / "in.jsonl", mime_type="application/jsonl", purpose="batch", part_size=30_000
        )
        upload = client.uploads.create(bytes=len(data), **new)
        second = client.uploads.parts.create(upload.id, data=data[50_000:])
        first = client.uploads.parts.create(upload.id, data=data[:50_000])
        with pytest.raises(openai.BadRequestError, match="MD5"):
            client.uploads.complete(upload.id, part_ids=[first.id, second.id], md5="0" * 32)
        done = client.uploads.complete(upload.id, part_ids=[first.id, second.id])
        cancelled = client.uploads.cancel(client.uploads.create(bytes=1, **new).id)
        contents = [client.files.content(each.file.id).content for each in (whole, done)]
        for each in (whole, done):
            client.files.delete(each.file.id)

    assert contents == [data, data]
    assert (whole.status, done.status, cancelled.status) == ("completed", "completed", "cancelled")
