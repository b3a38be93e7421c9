"""The application with the fake engine: faults, keys, shutdown, limits and the log."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
from conftest import calling, running, until
from nearfar_fakes import SECRET
from prometheus_client.parser import text_string_to_metric_families

from nearfar import ModelSettings, Settings, create_app
from nearfar.telemetry.logs import RequestRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

pytestmark = pytest.mark.anyio

OPENAI = "/v1/embeddings"
COHERE = ["/v1/rerank", "/v2/rerank"]
ADMIN = ["/admin/models/load", "/admin/models/unload"]


def embed(text: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "text-embedding-3-small", "input": text, **fields}


def rank(*documents: str) -> dict[str, Any]:
    return {"model": "rerank-v3.5", "query": "a question", "documents": documents}


@pytest.mark.parametrize("fault", ["boom", "nan", "zero", "few", "quit"])
async def test_an_engine_fault_is_a_500_in_openais_shape_and_the_next_request_succeeds(
    faked: httpx.AsyncClient, fault: str
) -> None:
    async with asyncio.timeout(30):
        failed = await faked.post(OPENAI, json=embed(f"hello {fault}"))
        after = await faked.post(OPENAI, json=embed("hello"))

    assert 500 == failed.status_code
    assert {"message", "type", "param", "code"} == failed.json()["error"].keys()
    assert "server_error" == failed.json()["error"]["type"]
    assert SECRET not in failed.text
    assert 200 == after.status_code


@pytest.mark.parametrize("path", COHERE)
@pytest.mark.parametrize("fault", ["boom", "nan", "zero", "few", "quit"])
async def test_an_engine_fault_is_a_500_in_coheres_shape_and_the_next_request_succeeds(
    faked: httpx.AsyncClient, path: str, fault: str
) -> None:
    async with asyncio.timeout(30):
        failed = await faked.post(path, json=rank("fine", f"hello {fault}"))
        after = await faked.post(path, json=rank("fine"))

    assert 500 == failed.status_code
    assert {"message", "id", "detail"} == failed.json().keys()
    assert SECRET not in failed.text
    assert 200 == after.status_code


@pytest.mark.parametrize(("fault", "status"), [("boom", 500), ("few", 500), ("nan", 500), ("giant", 413)])
async def test_in_one_batch_only_the_caller_of_the_row_that_fails_hears_of_it(fault: str, status: int) -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        engine.gate.clear()
        first = asyncio.create_task(client.post(OPENAI, json=embed("first")))
        await until(lambda: len(engine.batches) == 2)  # the probe, then ours
        texts = [f"text {number}" for number in range(31)] + [f"text {fault}"]
        calls = [asyncio.create_task(client.post(OPENAI, json=embed(text))) for text in texts]
        await until(lambda: app.state.fleet.depths()[0].rows == 32)
        engine.gate.set()
        answers = [await call for call in (first, *calls)]
        ready = await client.get("/health/ready")

    assert 32 == len(engine.batches[2])
    assert [200] * 32 + [status] == [answer.status_code for answer in answers]
    assert 200 == ready.status_code


async def test_a_model_that_fails_on_everything_is_not_ready_until_it_answers_again() -> None:
    """No request is needed for that: a health check tries the engine."""
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        lane = app.state.fleet.models()[0].lane
        lane._engine.broken = True
        failed = await client.post(OPENAI, json=embed("hello"))
        soon = await client.get("/health/ready")
        lane._liveness._answered_at -= 11
        later = await client.get("/health/ready")
        lane._engine.broken = False
        await lane._probing
        again = [(await client.get("/health/ready")).status_code]
        await lane._probing
        again.append((await client.get("/health/ready")).status_code)

    assert [500, 200, 503] == [each.status_code for each in (failed, soon, later)]
    assert 200 == again[-1]


async def test_every_caller_of_a_failed_batch_hears_of_it_in_its_own_dialect(faked: httpx.AsyncClient) -> None:
    calls = [faked.post(OPENAI, json=embed(["boom", f"text {index}"])) for index in range(8)]
    calls += [faked.post("/v2/rerank", json=rank("boom", f"text {index}")) for index in range(8)]

    async with asyncio.timeout(30):
        answers = await asyncio.gather(*calls)

    assert [500] * 16 == [answer.status_code for answer in answers]
    assert ["error"] * 8 == [next(iter(answer.json())) for answer in answers[:8]]
    assert ["message"] * 8 == [next(iter(answer.json())) for answer in answers[8:]]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"model": "m", "input": "a"', "could not parse the JSON body"),
        (b'{"model": "m", "input": NaN}', "could not parse the JSON body"),
        (b'{"model": "m", "input": "\xff"}', "could not parse the JSON body"),
        (b'{"model": "m", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "'$.input' is invalid"),
        (b'{"model": "m", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "could not parse the JSON body"),
        (b"", "it is empty"),
        (b"[]", "'$' is invalid"),
        (b'"text"', "'$' is invalid"),
        (b'{"model": 5, "input": "a"}', "'$.model' is invalid"),
        (b'{"model": "m"}', "'$.input' is invalid"),
        (b'{"model": "m", "input": [1.5]}', "'$.input' is invalid"),
        (b'{"model": "m", "input": [true]}', "'$.input' is invalid"),
        (b'{"model": "m", "input": ["a", 1]}', "'$.input' is invalid"),
        (b'{"model": "m", "input": [[1], "a"]}', "'$.input' is invalid"),
        (b'{"model": "text-embedding-3-small", "input": [99999999999999999999999]}', "not a token id"),
        (b'{"model": "text-embedding-3-small", "input": [-1]}', "-1 is not a token id"),
        (b'{"model": "text-embedding-3-small", "input": [[-1]]}', "-1 is not a token id"),
        (b'{"model": "m", "input": "a", "dimensions": 1.5}', "'$.dimensions' is invalid"),
    ],
)
async def test_a_body_that_is_not_what_it_should_be_is_refused_by_name(
    faked: httpx.AsyncClient, body: bytes, says: str
) -> None:
    answer = await faked.post(OPENAI, content=body, headers={"content-type": "application/json"})

    assert 400 == answer.status_code
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", [OPENAI, *COHERE])
async def test_an_eleven_megabyte_body_is_refused(faked: httpx.AsyncClient, path: str) -> None:
    answer = await faked.post(path, content=b'{"input": "' + b"a" * 11_000_000 + b'"}')

    assert 413 == answer.status_code
    assert "10000000 bytes" in answer.text


async def test_a_body_that_is_too_large_is_a_413_although_its_end_is_late() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 200
        await asyncio.sleep(0.4)
        yield b"x"

    settings = Settings(engine="fake", max_body_bytes=100, receive_timeout_s=0.1)
    async with running(settings) as app, calling(app) as client:
        answer = await client.post(OPENAI, content=body())

    assert 413 == answer.status_code


async def test_the_connection_of_a_body_that_is_too_slow_is_closed() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(0.4)
        yield b"}"

    settings = Settings(engine="fake", receive_timeout_s=0.1)
    async with running(settings) as app, calling(app) as client:
        answer = await client.post(OPENAI, content=body())

    assert 408 == answer.status_code
    assert "close" == answer.headers["connection"]


async def test_a_key_guards_everything_but_health() -> None:
    posts = dict.fromkeys((OPENAI, *COHERE, *ADMIN), 400)
    gets = dict.fromkeys(("/v1/models", "/info", "/metrics"), 200) | dict.fromkeys(("/v1/nothing", "/nothing"), 404)
    refused: list[dict[str, str]] = [
        *({}, {"authorization": ""}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}, {"api-key": ""}),
        {"authorization": "Bearer wrong", "x-api-key": "right"},
    ]
    accepted = [
        *({"authorization": "Bearer right"}, {"x-api-key": "right"}, {"API-Key": " right "}),
        {"authorization": "Bearer right", "x-api-key": "wrong"},
        {"authorization": "Basic eDp5", "x-api-key": "right"},
    ]

    async with running(Settings(engine="fake", api_key="right")) as app, calling(app) as client:
        found = {
            path: [
                (await client.request("POST" if path in posts else "GET", path, headers=each, content=b"{")).status_code
                for each in (*refused, *accepted)
            ]
            for path in posts | gets
        }
        health = [(await client.get(at)).status_code for at in ("/health/live", "/health/ready")]

    assert {path: [401] * len(refused) + [allowed] * len(accepted) for path, allowed in (posts | gets).items()} == found
    assert [200, 200] == health


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_probes_may_use_head(faked: httpx.AsyncClient, path: str) -> None:
    answer = await faked.head(path)

    assert 200 == answer.status_code


async def test_every_answer_has_a_request_id_errors_too(faked: httpx.AsyncClient) -> None:
    answers = [
        await faked.post(OPENAI, json=embed("hello")),
        await faked.post(OPENAI, json=embed("")),
        await faked.get(OPENAI),
        await faked.get("/v1/nothing"),
        await faked.get("/v2/nothing"),
        await faked.get("/health/live"),
        await faked.post("/v2/rerank", content=b"x" * 11_000_000),
    ]

    ids = [answer.headers["x-request-id"] for answer in answers]
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", one) for one in ids)
    assert len(answers) == len(set(ids))


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3", True), ("has space", False), ("x" * 129, False), ("a\u00e9", False)]
)
async def test_a_callers_own_request_id_is_kept_when_it_is_a_plain_token(
    faked: httpx.AsyncClient, given: str, kept: bool
) -> None:
    answer = await faked.get("/health/live", headers=[(b"x-request-id", given.encode("latin-1"))])

    assert kept == (answer.headers["x-request-id"] == given)


async def test_a_405_says_what_is_allowed(faked: httpx.AsyncClient) -> None:
    answers = [await faked.get(OPENAI), await faked.delete("/v2/rerank"), await faked.post("/v1/models/a/b", json={})]

    assert [405, 405, 405] == [answer.status_code for answer in answers]
    assert ["POST", "POST", "GET"] == [answer.headers["allow"] for answer in answers]


async def test_a_drain_refuses_new_requests_and_lets_running_ones_finish() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        engine.gate.clear()
        slow = asyncio.create_task(client.post(OPENAI, json=embed("slow")))
        await until(lambda: len(engine.batches) == 2)  # the probe, then ours
        draining = asyncio.create_task(app.state.drain.begin(10))
        await asyncio.sleep(0)
        refused = [await client.post(OPENAI, json=embed("new")), await client.post("/v2/rerank", json=rank("new"))]
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")
        engine.gate.set()
        lost, finished = await draining, await slow

    assert [503, 503, 503] == [answer.status_code for answer in (*refused, ready)]
    assert ["1", "1"] == [answer.headers["retry-after"] for answer in refused]
    assert "server_error" == refused[0].json()["error"]["type"]
    assert 200 == live.status_code == finished.status_code
    assert 0 == lost


async def test_a_server_that_hands_over_refuses_nothing_and_ends_each_connection_with_its_answer() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        before = await client.post(OPENAI, json=embed("hello"))
        app.state.drain.hand_over()
        after = await client.post(OPENAI, json=embed("hello"))

    assert [200, 200] == [before.status_code, after.status_code]
    assert "connection" not in before.headers
    assert "close" == after.headers["connection"]


async def test_a_drain_gives_up_at_its_deadline_and_says_how_many_were_lost() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        engine.gate.clear()
        slow = asyncio.create_task(client.post(OPENAI, json=embed("slow")))
        await until(lambda: len(engine.batches) == 2)  # the probe, then ours
        lost = await app.state.drain.begin(0.05)
        engine.gate.set()
        await slow

    assert 1 == lost


async def test_a_drain_after_a_hand_over_waits_for_what_is_in_flight_without_spinning() -> None:
    progress: list[int] = []
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        app.state.drain.hand_over()
        await client.post(OPENAI, json=embed("the last one for now"))
        engine = app.state.fleet.models()[0].lane._engine
        engine.gate.clear()
        slow = asyncio.create_task(client.post(OPENAI, json=embed("slow")))
        await until(lambda: app.state.drain.in_flight == 1)
        await app.state.drain.begin(0.05, lambda in_flight, _: progress.append(in_flight))
        engine.gate.set()
        await slow

    assert [1] == progress


async def test_a_drain_tells_again_and_again_how_many_are_in_flight_until_none_is() -> None:
    progress: list[tuple[int, float]] = []
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        engine.gate.clear()
        slow = [asyncio.create_task(client.post(OPENAI, json=embed("slow"))) for _ in range(2)]
        await until(lambda: len(engine.batches) == 2)  # the probe, then ours
        draining = asyncio.create_task(
            app.state.drain.begin(600, lambda *state: progress.append(state), progress_every_s=0.01)
        )
        await until(lambda: len(progress) == 3)
        engine.gate.set()
        lost, *_ = await asyncio.gather(draining, *slow)

    assert 0 == lost
    assert {2} == {in_flight for in_flight, _ in progress}
    assert 600 >= progress[0][1] > progress[1][1] > progress[2][1] > 590


async def test_a_request_over_its_deadline_is_answered_and_dropped() -> None:
    async with running(Settings(engine="fake", request_timeout_s=0.05)) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        engine.gate.clear()
        late = await client.post(OPENAI, json=embed("slow"))
        engine.gate.set()

    assert 504 == late.status_code
    assert "1" == late.headers["retry-after"]


async def test_a_full_queue_is_a_429_with_a_time_to_come_back() -> None:
    async with running(Settings(engine="fake", queue_tokens=4)) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        engine.gate.clear()
        first = asyncio.create_task(client.post(OPENAI, json=embed("first")))
        await until(lambda: len(engine.batches) == 2)  # the probe, then ours
        second = asyncio.create_task(client.post(OPENAI, json=embed("second")))
        await until(lambda: app.state.fleet.depths()[0].rows == 1)
        refused = [await client.post(OPENAI, json=embed("next")), await client.post("/v2/rerank", json=rank("next"))]
        engine.gate.set()
        await asyncio.gather(first, second)

    assert [429, 429] == [answer.status_code for answer in refused]
    assert "rate_limit_exceeded" == refused[0].json()["error"]["code"]
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)


async def test_before_the_models_are_known_requests_wait_or_get_a_retry_after(tmp_path: Any) -> None:
    """A model that cannot be opened fails the waiting requests too, with an error that names no path."""
    models = (ModelSettings(name=str(tmp_path)),)
    app, refusing = (create_app(Settings(models=models, while_loading=way)) for way in ("wait", "refuse"))

    async with refusing.lifespan(), calling(refusing) as client:
        refused = await client.post(OPENAI, json=embed("hello"))
    async with app.lifespan(), calling(app) as client:
        waited = await client.post(OPENAI, json=embed("hello"))
        with pytest.raises(Exception, match=r"has no config\.json"):
            await app.state.fleet.opened()
        failed = [await client.post(OPENAI, json=embed("hello")), await client.get("/health/ready")]
        live = await client.get("/health/live")

    assert 503 == refused.status_code
    assert "1" == refused.headers["retry-after"]
    assert [503, 503, 503] == [answer.status_code for answer in (waited, *failed)]
    assert str(tmp_path) not in waited.text + failed[0].text
    assert 200 == live.status_code


async def test_metrics_count_requests_batches_and_truncated_tokens() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        answer = await client.post(OPENAI, json=embed(["hello", "word " * 300]))
        await client.get("/v1/nothing")
        text = (await client.get("/metrics")).text

    found = {
        (sample.name, sample.labels.get("status")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert "46" == answer.headers["x-nearfar-truncated-tokens"]  # 300 words into 254 places
    assert 46 == found["nearfar_truncated_tokens_total", None]
    assert 259 == found["nearfar_tokens_total", None] == answer.json()["usage"]["total_tokens"]
    assert (
        1
        == found["nearfar_http_request_duration_seconds_count", "200"]
        == found["nearfar_http_request_duration_seconds_count", "404"]
    )
    assert 2 == found["nearfar_batch_rows_sum", None]
    assert 0 == found["nearfar_queue_tokens", None]


async def test_invented_methods_share_one_label_of_the_metrics() -> None:
    """Each with a label of its own, a few thousand would crowd out everything else that is counted."""
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        for number in range(3):
            await client.request(f"MADE-UP-{number}", "/v1/nothing")
        text = (await client.get("/metrics")).text

    labels = 'dialect="openai",method="other",route="none",status="404"'
    assert f"nearfar_http_request_duration_seconds_count{{{labels}}} 3.0" in text
    assert "MADE-UP" not in text


async def test_a_request_is_one_log_line_without_its_text(
    faked: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await faked.post(OPENAI, json=embed("a private sentence"), headers={"authorization": "Bearer sk-private"})
        await faked.post("/v2/rerank", json=rank("a private sentence"))
        await faked.post(OPENAI, json=embed("a private boom"))

    ours = [record.fields for record in caplog.records if isinstance(record, RequestRecord)]
    assert [200, 200, 500] == [fields["status"] for fields in ours]
    request_fields = {"request_id", "dialect", "method", "path", "status", "ms"}
    job_fields = {"model", "rows", "tokens", "cut", "tokenize_ms", "queue_ms", "inference_ms", "render_ms"}
    error_fields = {"error", "reason"}
    assert [request_fields | job_fields, request_fields | job_fields, request_fields | error_fields] == [
        fields.keys() for fields in ours
    ]
    assert ["openai", "cohere", "openai"] == [fields["dialect"] for fields in ours]
    shown = json.dumps([ours, *(record.getMessage() for record in caplog.records)])
    assert "private" not in shown


async def test_a_disconnected_client_frees_the_engine() -> None:
    async with running(Settings(engine="fake")) as app:
        engine = app.state.fleet.models()[0].lane._engine
        engine.gate.clear()
        statuses: list[int] = []
        leave = asyncio.Event()
        busy = asyncio.create_task(_call(app, embed("busy"), asyncio.Event(), []))
        await until(lambda: len(engine.batches) == 2)  # the probe, then ours
        leaving = asyncio.create_task(_call(app, embed(["gone"] * 40), leave, statuses))
        await until(lambda: app.state.fleet.depths()[0].rows > 0)
        leave.set()
        await leaving
        engine.gate.set()
        await busy

    assert [499] == statuses
    assert 2 == len(engine.batches)


async def test_a_disconnect_is_noticed_and_counted_during_the_upload_and_the_forward() -> None:
    async with running(Settings(engine="fake")) as app:
        lane = app.state.fleet.models()[0].lane
        engine = lane._engine
        statuses: list[int] = []
        leave = asyncio.Event()
        leave.set()
        await _call(app, embed("an upload that breaks off"), leave, statuses, more_body=True)
        engine.gate.clear()
        leave = asyncio.Event()
        leaving = asyncio.create_task(_call(app, embed("gone"), leave, statuses))
        await until(lambda: len(engine.batches) == 2)  # the probe, then ours
        leave.set()
        await leaving  # although its forward still runs
        engine.gate.set()
        await _call(app, embed("another"), asyncio.Event(), statuses)
        text = app.state.metrics.render().decode()

        assert [499, 499, 200] == statuses
        assert (0, 0, 0) == (lane.admission.requests, lane.admission.tokens, lane.depth().rows)
    labels = 'dialect="openai",method="POST",route="/v1/embeddings",status="499"'
    assert f"nearfar_http_request_duration_seconds_count{{{labels}}} 2.0" in text


async def _call(
    app: Any, body: dict[str, Any], leave: asyncio.Event, statuses: list[int], *, more_body: bool = False
) -> None:
    """Call the application as a server does, hanging up when ``leave`` is set."""
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": more_body}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": OPENAI,
        "raw_path": OPENAI.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    await app(scope, receive, send)


@pytest.mark.parametrize("item", ["[1]", '"a"'], ids=["lists", "texts"])
async def test_far_too_many_inputs_are_refused_in_openais_words(faked: httpx.AsyncClient, item: str) -> None:
    body = "[" + ",".join([item] * 140_000) + "]"
    content = f'{{"model": "text-embedding-3-small", "input": {body}}}'.encode()

    answer = await faked.post(OPENAI, content=content)

    assert 400 == answer.status_code
    assert "Invalid 'input': array length must be 65536 or less." == answer.json()["error"]["message"]


async def test_texts_full_of_quotes_and_commas_are_not_taken_for_many(faked: httpx.AsyncClient) -> None:
    texts = [f'","{number}",' for number in range(2048)]

    answer = await faked.post(OPENAI, json=embed(texts))

    assert 200 == answer.status_code
    assert 2048 == len(answer.json()["data"])


async def test_a_prefix_that_a_proxy_leaves_on_paths_is_removed() -> None:
    settings = Settings(engine="fake", root_path="/embeddings/model-a")
    body = {"model": "text-embedding-3-small", "input": "hello"}
    expected = {"/embeddings/model-a": 200, "": 200, "/embeddings/model-ab": 404}

    async with running(settings) as app, calling(app) as client:
        found = {prefix: (await client.post(f"{prefix}/v1/embeddings", json=body)).status_code for prefix in expected}
        models = await client.get("/embeddings/model-a/v1/models")

    assert expected == found
    assert 200 == models.status_code
