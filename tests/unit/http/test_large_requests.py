"""Requests that cost far more than their size are refused before they are decoded, run or rendered."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from conftest import calling, running

from nearfar import Settings
from nearfar.dialects.kit.routing import installed_dialects, job_paths
from nearfar.serving.offload import offload

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.anyio

PATHS = sorted(path.path for path in job_paths(installed_dialects()))
TEXTS = ["a"] * 11
# Eleven texts, on routes of protocols without a limit or with a higher one.
REQUESTS: dict[str, dict[str, Any]] = {
    "/api/embed": {"model": "all-minilm", "input": TEXTS},
    "/api/v1/embed": {"texts": TEXTS},
    "/represent": {"input": TEXTS},
    "/rerank": {"query": "q", "documents": TEXTS},
    "/score": {"text_1": "q", "text_2": TEXTS},
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": TEXTS},
}


@pytest.mark.parametrize("values", ['"a",', "1,", '"a, \\" b",', '{"text":"a"},'])
async def test_a_body_of_hundreds_of_thousands_of_values_is_refused_undecoded(
    faked: httpx.AsyncClient, values: str
) -> None:
    body = '{"input":[' + values * 400_000 + "1]}"

    answers = {path: await faked.post(path, content=body) for path in PATHS}

    assert dict.fromkeys(PATHS, 413) == {path: answer.status_code for path, answer in answers.items()}
    assert all(" at most " in answer.text for answer in answers.values())


@pytest.mark.parametrize(
    "body", [b"[" + b" " * 1_000_000, b'{"model":"none","input":"%b"}' % (b"a" * 1_000_000), b" " * 1_000_000]
)
async def test_the_body_of_a_refused_request_is_freed_without_the_garbage_collector(
    faked: httpx.AsyncClient, body: bytes
) -> None:
    """It runs so rarely that such requests, one after the other, would take gigabytes."""
    await faked.post("/v1/embeddings", content=body)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        answers = [await faked.post("/v1/embeddings", content=body) for _ in range(10)]
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()

    assert all(answer.is_client_error for answer in answers)
    assert kept < 2_500_000


async def test_a_long_body_of_few_values_is_read(faked: httpx.AsyncClient) -> None:
    text = 'One, two, "three", \\ four. ' * 20_000

    answer = await faked.post("/api/embed", json={"model": "all-minilm", "input": text})

    assert 200 == answer.status_code, answer.text


@pytest.mark.parametrize("path", REQUESTS)
async def test_more_inputs_than_the_settings_allow_are_refused(path: str) -> None:
    statuses = []
    for limit in (10, 11):
        async with running(Settings(engine="fake", max_inputs=limit)) as app, calling(app) as client:
            statuses.append((await client.post(path, json=REQUESTS[path])).status_code)

    assert statuses[0] in {400, 422}
    assert 200 == statuses[1]


async def test_an_answer_over_the_limit_is_refused_before_it_is_computed() -> None:
    async with running(Settings(engine="fake", max_answer_bytes=20_000)) as app, calling(app) as client:
        paths = ("/api/embed", "/api/v1/embed", "/represent", "/v1/embeddings", "/embed_all")
        bodies = REQUESTS | {"/embed_all": {"inputs": TEXTS}}
        refused = {path: await client.post(path, json=bodies[path]) for path in paths}
        metrics = (await client.get("/metrics")).text

    assert all("max_answer_bytes" in answer.text for answer in refused.values()), refused
    assert "nearfar_forward_duration_seconds_count" not in metrics


@pytest.mark.parametrize(("numbers", "is_here"), [(32_768, True), (32_769, False)])
async def test_work_on_many_numbers_leaves_the_event_loop(numbers: int, *, is_here: bool) -> None:
    thread = await offload(numbers, threading.get_ident)

    assert is_here == (thread == threading.get_ident())


async def test_a_long_body_with_halves_of_surrogate_pairs_is_repaired_off_the_event_loop(
    faked: httpx.AsyncClient,
) -> None:
    """The time of this thread's processor counts, so that other processes don't."""
    body = rb'{"model":"text-embedding-3-small","input":"%b"}' % (rb"\ud83d" * 800_000)
    await faked.post("/v1/embeddings", content=body[:40] + body[-2:])
    began = time.thread_time()

    answer = await faked.post("/v1/embeddings", content=body)

    assert 200 == answer.status_code, answer.text
    assert time.thread_time() - began < 0.2
