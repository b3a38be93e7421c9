"""OpenAI's headers report the processing time and the limits of the model's queue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from conftest import calling, running, until

from nearfar import Settings
from nearfar.dialects.openai.headers import duration
from nearfar.http.gate.keys import make_key

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

PATH = "/v1/embeddings"
LIMIT, REMAINING, RESET = (f"x-ratelimit-{what}-tokens" for what in ("limit", "remaining", "reset"))


def embed(text: str) -> dict[str, Any]:
    return {"model": "text-embedding-3-small", "input": text}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (0.9996, "1s"),
        (1.5, "1.5s"),
        (59.999, "59.999s"),
        (360, "6m0s"),
        (1145.228, "19m5.228s"),
        (3600.25, "1h0m0.25s"),
        (90061, "25h1m1s"),
    ],
)
def test_durations_have_the_format_of_openai(seconds: float, expected: str) -> None:
    assert expected == duration(seconds)


async def test_responses_report_the_queue_limits_and_a_full_queue_its_reset_time() -> None:
    async with running(Settings(engine="fake", queue_tokens=8)) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        alone = await client.post(PATH, json=embed("first"))
        engine.gate.clear()
        waiting = asyncio.create_task(client.post(PATH, json=embed("first and more")))
        await until(lambda: len(engine.batches) == 3)  # the probe, the first, then this one
        behind = asyncio.create_task(client.post(PATH, json=embed("second")))
        await until(lambda: app.state.fleet.depths()[0].rows == 1)
        refused = await client.post(PATH, json=embed("next"))
        engine.gate.set()
        last = [await waiting, await behind][1]

    assert ("8", "8", "0s") == tuple(alone.headers[name] for name in (LIMIT, REMAINING, RESET))
    assert 429 == refused.status_code
    assert ("8", "1") == (refused.headers[LIMIT], refused.headers[REMAINING])
    assert refused.headers[RESET].endswith("s")
    assert refused.headers[RESET] != "0s"
    assert "2020-10-01" == refused.headers["openai-version"]
    assert "8" == last.headers[LIMIT]


async def test_the_tighter_of_the_queues_and_the_keys_limits_is_reported(tmp_path: Path) -> None:
    keys = {name: make_key(name) for name in ("loose", "tokens", "requests")}
    more = {"loose": "max_concurrent = 1000\ntokens_per_minute = 1000000", "tokens": "tokens_per_minute = 60"}
    more["requests"] = "max_concurrent = 1"
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(f"{entry}\n{more[name]}" for name, (_, entry) in keys.items()))
    found: dict[str, tuple[str, ...]] = {}
    async with (
        running(Settings(engine="fake", queue_tokens=900, queue_requests=9, api_keys_file=str(file))) as app,
        calling(app) as client,
    ):
        for name, (key, _) in keys.items():
            answer = await client.post(PATH, json=embed("first"), headers={"authorization": f"Bearer {key}"})
            kinds = [f"x-ratelimit-{what}-{kind}" for kind in ("tokens", "requests") for what in ("limit", "remaining")]
            found[name] = tuple(answer.headers[kind] for kind in kinds)
        spender = {"authorization": f"Bearer {keys['tokens'][0]}"}
        refused = [await client.post(PATH, json=embed("many words " * 20), headers=spender) for _ in range(2)][1]

    assert {
        "loose": ("900", "900", "9", "9"),
        "tokens": ("60", "57", "9", "9"),
        "requests": ("900", "900", "1", "1"),
    } == found
    assert 429 == refused.status_code
    assert "60" == refused.headers[LIMIT]
    assert int(refused.headers[REMAINING]) < 20
    assert refused.headers[RESET].endswith("s")


@pytest.mark.parametrize(
    ("retries", "status"), [("2", 200), ("1", 429), ("0", 429), ("-1", 429), ("\u00b2", 429), ("9" * 9, 429)]
)
async def test_the_last_retry_of_a_client_may_exceed_the_queue_limit(retries: str, status: int) -> None:
    """A retry count that isn't a small number is ignored."""
    async with running(Settings(engine="fake", queue_tokens=12)) as app, calling(app) as client:
        model = app.state.fleet.models()[0]
        engine, admission = model.lane._engine, model.lane.admission
        engine.gate.clear()
        waiting = [asyncio.create_task(client.post(PATH, json=embed("first of four words"))) for _ in range(2)]
        await until(lambda: admission.requests == 2)
        headers = {b"x-stainless-retry-count": retries.encode("latin-1")}
        retrying = asyncio.create_task(client.post(PATH, json=embed("next"), headers=headers))
        await until(lambda: retrying.done() or admission.requests == 3)
        engine.gate.set()
        answer, *_ = await asyncio.gather(retrying, *waiting)

    assert status == answer.status_code


async def test_a_request_for_a_full_queue_is_refused_before_it_is_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(Settings(engine="fake", queue_tokens=8)) as app, calling(app) as client:
        model = app.state.fleet.models()[0]
        model.lane._engine.gate.clear()
        queued = [
            asyncio.create_task(client.post(PATH, json=embed(text))) for text in ("first and more", "second and more")
        ]
        await until(lambda: model.lane.admission.requests == 2)
        with monkeypatch.context() as no_tokenizer:
            no_tokenizer.delattr(type(model.encoder), "encode")
            refused = await client.post(PATH, json=embed("next"))
        model.lane._engine.gate.set()
        await asyncio.gather(*queued)

    assert 429 == refused.status_code


async def test_a_full_queue_reports_its_request_limit_and_when_to_retry() -> None:
    async with running(Settings(engine="fake", queue_requests=1)) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        await client.post(PATH, json=embed("first"))
        engine.gate.clear()
        waiting = asyncio.create_task(client.post(PATH, json=embed("first")))
        await until(lambda: app.state.fleet.depths()[0].requests == 1)
        refused = await client.post(PATH, json=embed("next"))
        engine.gate.set()
        await waiting

    limits = {name: refused.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining", "reset")}
    assert ("1", "0") == (limits["limit"], limits["remaining"])
    assert (429, "1", "500") == (refused.status_code, refused.headers["retry-after"], refused.headers["retry-after-ms"])


async def test_no_reset_time_is_reported_before_the_first_batch() -> None:
    async with running(Settings(engine="fake", queue_tokens=4)) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        engine.gate.clear()
        requests = [asyncio.create_task(client.post(PATH, json=embed(text))) for text in ("first", "second")]
        await until(lambda: app.state.fleet.depths()[0].tokens == 4)
        refused = await client.post(PATH, json=embed("next"))
        engine.gate.set()
        await asyncio.gather(*requests)

    assert ("4", "0") == (refused.headers[LIMIT], refused.headers[REMAINING])
    assert RESET not in refused.headers


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/no-such-model", PATH])
async def test_every_response_reports_the_processing_time(path: str) -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        answer = await client.get(path)

    assert answer.headers["openai-processing-ms"].isdigit()
    assert "2020-10-01" == answer.headers["openai-version"]
    assert LIMIT not in answer.headers
    assert not any(name.startswith("x-ratelimit") and name.endswith("requests") for name in answer.headers)
