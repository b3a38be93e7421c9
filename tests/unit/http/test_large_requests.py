"""Requests that cost far more than their size are refused before they are decoded, run or rendered."""

from __future__ import annotations

import asyncio
import base64
import gc
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from checkpoints import write_cached
from conftest import calling, running, write_tiny_splade

from nearfar import Settings
from nearfar.core.caller import ANONYMOUS
from nearfar.core.jobs import TokenizeJob
from nearfar.core.settings import ModelSettings
from nearfar.dialects.kit.endpoint import numbers_of
from nearfar.dialects.kit.rendering import ArrayFormat, encode_reply, render_array
from nearfar.dialects.kit.routing import installed_dialects, job_paths
from nearfar.serving.offload import offload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx
    from litestar import Litestar

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


async def test_tokens_of_many_texts_are_rendered_off_the_event_loop(every_kind: Litestar) -> None:
    """A body may have 150,000 texts of three tokens each, which took 250 ms of the loop."""
    job = TokenizeJob(model=None, texts=("a",) * 1000, special=True)

    tokenized = await every_kind.state.service.tokenize(job, ANONYMOUS)

    thread = await offload(numbers_of(tokenized), threading.get_ident)
    assert thread != threading.get_ident()


async def test_a_long_body_with_halves_of_surrogate_pairs_is_repaired_off_the_event_loop(
    faked: httpx.AsyncClient,
) -> None:
    """The CPU time of this thread counts, so that other processes don't."""
    body = rb'{"model":"text-embedding-3-small","input":"%b"}' % (rb"\ud83d" * 800_000)
    await faked.post("/v1/embeddings", content=body[:40] + body[-2:])
    began = time.thread_time()

    answer = await faked.post("/v1/embeddings", content=body)

    assert 200 == answer.status_code, answer.text
    assert time.thread_time() - began < 0.2


LARGE = 1_000_000  # numbers, as which an answer is encoded in parts


class Inner(msgspec.Struct, omit_defaults=True):
    """A part of a reply."""

    values: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    others: list[int] = msgspec.field(default_factory=list)
    text: str = "a \0 b"


class Outer(msgspec.Struct, rename={"inner": "in"}):
    """A reply."""

    inner: list[Inner] | dict[str, list[msgspec.Raw]]
    note: str | None = None


@pytest.mark.parametrize(
    "reply",
    [
        msgspec.Raw(b"[" + b"1," * 2_000_000 + b"1]"),
        [],
        [[]],
        [msgspec.Raw(b"1"), msgspec.Raw(b"[2]")],
        [1.5, None, "\0"],
        Outer([]),
        Outer([Inner(), Inner(msgspec.Raw(b"[1]"), [1, 2]), Inner(others=[3])], "\0"),
        Outer({"float": [msgspec.Raw(b"[1]")], "\0": [], "int8": [msgspec.Raw(b"2")]}),
    ],
)
async def test_an_answer_that_is_encoded_in_parts_is_the_same(reply: object) -> None:
    assert msgspec.json.encode(reply) == await encode_reply(LARGE, lambda: reply)


async def test_the_event_loop_runs_while_a_large_answer_is_encoded() -> None:
    """Encoded at once, no other thread runs from its beginning to its end. This process's CPU time counts."""
    vectors = np.full((9, 1_000_000), 0.12345679, np.float32)
    began = last = time.process_time()
    longest = 0.0
    encoding = asyncio.create_task(encode_reply(vectors.size, lambda: {"all": render_array(vectors), "last": []}))
    while not encoding.done():
        await asyncio.sleep(0)
        last, longest = time.process_time(), max(longest, time.process_time() - last)

    encoded = await encoding
    assert isinstance(encoded, bytes)
    assert len(encoded) > 90_000_000
    assert longest < (last - began) / 4


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (300, 256), (2, 40_000), (40_000, 1), (70, 1000)])
def test_an_array_that_is_rendered_in_parts_has_the_same_numbers(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).standard_normal(shape).astype(np.float32)

    assert array.tolist() == np.array(msgspec.json.decode(render_array(array)), np.float32).tolist()
    assert base64.b64decode(msgspec.json.decode(ArrayFormat(encoding_format="base64").render(array))) == array.tobytes()


async def test_sparse_vectors_are_counted_as_they_come(tmp_path: Path) -> None:
    """How many weights a text has is known after its forward; any could have one for each token of the vocabulary."""
    write_cached(tmp_path / "splade", "every_kind's SPLADE", write_tiny_splade)
    models = (ModelSettings(name=str(tmp_path / "splade"), engine="torch"),)
    texts = [f"{a} {b}" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnopqrst"]
    settings = Settings(models=models, device="cpu", dtype="float32", max_answer_bytes=300_000)
    async with running(settings) as app, calling(app) as client:
        alone = [(await client.post("/embed_sparse", json={"inputs": text})).json()[0] for text in texts[:6]]
        together = await client.post("/embed_sparse", json={"inputs": [*texts[:6], texts[0]]})
        refused = {
            "/embed_sparse": await client.post("/embed_sparse", json={"inputs": texts}),
            "equal": await client.post("/embed_sparse", json={"inputs": texts[:1] * 400}),
            "/represent": await client.post("/represent", json={"input": texts}),
            "/vertex": await client.post("/vertex", json={"instances": [{"inputs": text} for text in texts]}),
        }

    assert [*alone, alone[0]] == [
        [{"index": one["index"], "value": pytest.approx(one["value"], abs=1e-5)} for one in each]
        for each in together.json()
    ]
    assert all("max_answer_bytes" in answer.text for answer in refused.values()), refused


async def test_the_answers_to_all_jobs_of_a_request_count_together() -> None:
    requests: dict[str, Any] = {
        "/vertex": {"instances": [{"inputs": "a"}] * 11},
        "/voyage/v1/contextualizedembeddings": {"model": "voyage-context-3", "inputs": [["a"]] * 11},
    }
    async with running(Settings(engine="fake", max_answer_bytes=20_000)) as app, calling(app) as client:
        refused = {path: await client.post(path, json=body) for path, body in requests.items()}
        once = await client.post("/vertex", json={"instances": [{"inputs": "a"}]})

    assert all("max_answer_bytes" in answer.text for answer in refused.values()), refused
    assert 200 == once.status_code, once.text


async def test_a_request_has_at_most_2048_jobs(faked: httpx.AsyncClient) -> None:
    bodies: dict[str, Callable[[int], object]] = {
        "/vertex": lambda count: {"instances": [{"inputs": ""}] * count},
        "/voyage/v1/contextualizedembeddings": lambda count: {"model": "voyage-context-3", "inputs": [[""]] * count},
        "/api/v1/rerank/batch": lambda count: [{"query": "", "passages": ["a"]}] * count,
    }
    for path, body in bodies.items():
        answers = [(await faked.post(path, json=body(count))).text for count in (2048, 2049)]

        assert "2049" not in answers[0]
        assert "2049" in answers[1], answers
