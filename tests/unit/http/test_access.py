"""What is noted of requests: which dialect's they were, how long each part took, and no more labels than there are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from conftest import calling, running
from prometheus_client.parser import text_string_to_metric_families

from nearfar import Settings
from nearfar.telemetry.logs import RequestRecord

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.anyio

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SENT: list[tuple[str, str, dict[str, Any] | None, str, int]] = [
    ("POST", "/v1/embeddings", {"model": "m", "input": "one"}, "openai", 404),
    ("POST", "/v1/embeddings", {"model": MODEL, "input": "one"}, "openai", 200),
    ("POST", "/v2/embed", {"model": "m", "input_type": "search_query", "texts": ["one"]}, "cohere", 404),
    ("POST", "/embed", {"inputs": "one"}, "tei", 200),
    ("POST", "/tokenize", {"inputs": "one"}, "tei", 200),
    ("POST", "/tokenize", {"model": MODEL, "prompt": "one"}, "vllm", 200),
    ("POST", "/api/embed", {"model": MODEL, "input": "one"}, "ollama", 200),
    ("GET", "/v1/nothing", None, "openai", 404),
    ("GET", "/health/live", None, "native", 200),
    ("DELETE", "/v2/embed", None, "cohere", 405),
]


async def counted(client: httpx.AsyncClient) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the samples of each name, with their labels."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families((await client.get("/metrics")).text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


async def test_requests_are_counted_by_their_dialect() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        for method, path, body, _, _ in SENT:
            await client.request(method, path, json=body)
        found = await counted(client)

    expected: dict[tuple[str, str], int] = {}
    for *_, dialect, status in SENT:
        expected[dialect, str(status)] = expected.get((dialect, str(status)), 0) + 1
    got: dict[tuple[str, str], float] = {}
    for labels, value in found["nearfar_http_request_duration_seconds_count"]:
        key = labels["dialect"], labels["status"]
        got[key] = got.get(key, 0) + value
    assert expected == got


async def test_the_parts_of_a_job_are_timed_by_model_and_failures_are_counted_by_kind() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        for text in ("one", "two", "boom"):
            await client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": text})
        found = await counted(client)

    of = {"model": MODEL, "task": "embed"}
    for part in ("tokenize", "queue_wait", "inference"):
        assert [(of, 2.0)] == found[f"nearfar_{part}_duration_seconds_count"]
    assert [({"dialect": "openai"}, 2.0)] == found["nearfar_render_duration_seconds_count"]
    assert [({"task": "embed", "error_type": "EngineError"}, 1.0)] == found["nearfar_job_failures_total"]
    assert [({"model": MODEL}, 1.0)] == found["nearfar_forward_failures_total"]


async def test_the_share_of_padding_is_that_of_the_batch() -> None:
    """Rows of 3 and of 12 tokens, with the special ones, are padded to 24, of which 9 are padding."""
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        before = await counted(client)
        await client.post("/v1/embeddings", json={"model": MODEL, "input": ["one", "one " * 10]})
        found = await counted(client)

    assert "nearfar_batch_padding_ratio_sum" not in before
    assert [({"model": MODEL}, 9 / 24)] == found["nearfar_batch_padding_ratio_sum"]
    assert [({"model": MODEL}, 15.0)] == found["nearfar_batch_tokens_sum"]


async def test_metrics_hold_no_word_of_a_caller() -> None:
    """Each would be a new series, and visible to every reader of the metrics."""
    headers = {"authorization": "Bearer sk-private", "x-request-id": "private", "user-agent": "private"}
    sent: list[tuple[str, dict[str, Any]]] = [
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a private sentence", "user": "private"}),
        ("/v1/embeddings", {"model": "private", "input": "one"}),
        ("/v1/embeddings?private=1", {"model": "text-embedding-3-small", "input": "a private boom"}),
        ("/v1/models/private", {}),
        ("/private", {}),
    ]

    async with running(Settings(engine="fake", api_key="sk-private")) as app, calling(app) as client:
        statuses = [(await client.post(path, json=body, headers=headers)).status_code for path, body in sent]
        wrong = await client.get("/metrics", headers={"authorization": "Bearer sk-wrongprivate"})
        text = (await client.get("/metrics", headers=headers)).text

    assert [200, 404, 500, 405, 404] == statuses
    assert 401 == wrong.status_code
    assert "nearfar_job_failures_total" in text
    assert "private" not in text


async def test_a_line_of_the_log_names_the_key_and_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    async with running(Settings(engine="fake", api_key="sk-private")) as app, calling(app) as client:
        with caplog.at_level(logging.DEBUG):
            for key in ("sk-private", "sk-wrongprivate"):
                await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})

    ours = [record.fields for record in caplog.records if isinstance(record, RequestRecord)]
    assert [(200, "default"), (401, None)] == [(fields["status"], fields.get("key")) for fields in ours]
    assert "private" not in str(
        [ours, *(record.__dict__ for record in caplog.records if not isinstance(record, RequestRecord))]
    )


async def test_keys_that_arrive_elsewhere_than_in_their_header_are_masked_everywhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In paths, queries and methods; cut to a length that keeps no part of a key, neither."""
    caplog.set_level(logging.INFO, "nearfar.access")
    key = "Q7vX-opaque~secret"
    paths = [f"/v1/models/{key}", f"/{key}/v1/embeddings", f"/x?api_key={key}", f"/x%3Fapi_key%3D{key}"]
    paths += [f"/v1/key={key}/x", f"/{'x' * 190}/{key}", f"/{key.replace('-', '%252D')}"]
    async with running(Settings(engine="fake", api_key=key)) as app, calling(app) as client:
        client.headers["authorization"] = f"Bearer {key}"
        for path in paths:
            await client.get(path)
        for method in (key[:12], f"X{key}", "X" * 5000):
            await client.request(method, "/v1/models")
        metrics = (await client.get("/metrics")).text

    lines = [record.fields for record in caplog.records if isinstance(record, RequestRecord)]
    assert len(paths) + 4 == len(lines)
    assert not [line for line in lines if key in str(line) or key[:8] in str(line["path"])]
    assert 200 >= max(len(str(line["path"])) for line in lines)
    assert 20 >= max(len(str(line["method"])) for line in lines)
    assert key[:8] not in metrics


async def test_the_log_line_of_an_error_names_the_field(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nearfar.access")
    text = "encoding of a private text"
    sent: list[tuple[str, dict[str, Any], str | None]] = [
        ("/v1/embeddings", {"model": MODEL, "input": text, "encoding_format": text}, "encoding_format"),
        ("/v1/embeddings", {"model": MODEL, "input": text, "dimensions": 100_000}, "dimensions"),
        ("/v1/embeddings", {"model": MODEL, "input": [1, text]}, "input"),
        ("/v1/embeddings", {"model": MODEL, "input": ""}, "input"),
        ("/v1/embeddings", {"model": MODEL}, "input"),
        ("/v1/embeddings", {"model": text, "input": text}, None),
        ("/v2/embed", {"model": MODEL, "input_type": text, "texts": ["one"]}, "input_type"),
        ("/embed", {"inputs": 5}, "inputs"),
        ("/v1/rerank", {"model": MODEL, "query": text, "documents": []}, "documents"),
        ("/v1/rerank", {"model": MODEL, "query": text, "documents": ["b"], "top_n": text}, "top_n"),
    ]
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        for path, body, _ in sent:
            await client.post(path, json=body)

    lines = [record.fields for record in caplog.records if isinstance(record, RequestRecord)]
    fields = [str(line.get("field", "")).partition("[")[0] or None for line in lines]
    assert [field for *_, field in sent] == fields
    assert "private" not in str(lines)


async def test_the_log_line_of_an_error_has_its_class_and_reason_but_no_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nearfar.access")
    secret = "a secret text"
    async with running(Settings(engine="fake", api_key="a-secret-key")) as app, calling(app) as client:
        client.headers["authorization"] = "Bearer a-secret-key"
        await client.post("/v1/embeddings", json={"model": secret, "input": secret})
        await client.post("/v1/embeddings", json={"model": MODEL, "input": secret, "encoding_format": secret})
        await client.post(
            "/v1/embeddings", json={"model": MODEL, "input": secret}, headers={"authorization": "Bearer b"}
        )
        await client.get("/v1/nothing")
        await client.post("/v1/embeddings", json={"model": MODEL, "input": secret})

    lines = [record.fields for record in caplog.records if isinstance(record, RequestRecord)]
    found = [(line.get("error"), line.get("reason")) for line in lines]
    assert [
        ("ModelNotFound", "no served model has the name"),
        ("InputError", "a field of the request is wrong"),
        ("ApiKeyInvalid", "the API key is unknown"),
        ("PathNotFound", "no route has the path"),
        (None, None),
    ] == found
    assert secret not in str(lines)
    assert "a-secret-key" not in str(lines)
