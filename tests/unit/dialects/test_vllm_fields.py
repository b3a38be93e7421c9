"""vLLM's fields on every route that its callers use: honored, or refused by name where that would change a number."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from conftest import calling, running

from nearfar import ModelSettings, Settings
from nearfar.core.settings import BUILTIN_MODEL

if TYPE_CHECKING:
    import httpx
    from litestar import Litestar

pytestmark = pytest.mark.anyio

LONG = "cat dog bird " * 40
EMBEDDINGS: dict[str, Any] = {"model": "all-minilm", "input": LONG}
RANKING: dict[str, Any] = {"model": "all-minilm", "query": "cat", "documents": ["dog", LONG]}
# path → a body with a long text
LONG_TEXTS: dict[str, dict[str, Any]] = {
    "/v1/embeddings": EMBEDDINGS,
    "/embeddings": EMBEDDINGS,
    "/pooling": EMBEDDINGS | {"task": "embed"},
    "/rerank": RANKING,
    "/v1/rerank": RANKING,
    "/v2/rerank": RANKING,
    "/score": {"text_1": "cat", "text_2": LONG},
    "/v1/score": {"queries": "cat", "documents": [LONG]},
}


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert 200 == answer.status_code, answer.text
    found: dict[str, Any] = answer.json()
    return found


def numbers(answer: dict[str, Any]) -> Any:
    """Return the vector, or the scores by index."""
    if "data" in answer and "embedding" in answer["data"][0]:
        return answer["data"][0]["embedding"]
    items = sorted(answer.get("results") or answer["data"], key=lambda item: item["index"])
    return (
        items[0]["data"] if "data" in items[0] else [item.get("relevance_score", item.get("score")) for item in items]
    )


@pytest.mark.parametrize("path", LONG_TEXTS)
async def test_texts_are_cut_to_truncate_prompt_tokens_on_either_side(path: str, builtin: httpx.AsyncClient) -> None:
    body = LONG_TEXTS[path]
    head = json.loads(json.dumps(body).replace(LONG, "cat dog bird cat dog bird"))
    tail = json.loads(json.dumps(body).replace(LONG, "dog bird cat dog bird"))

    whole = numbers(await post(builtin, path, **body))
    right = numbers(await post(builtin, path, **body, truncate_prompt_tokens=8))
    left = numbers(await post(builtin, path, **body, truncate_prompt_tokens=7, truncation_side="left"))

    assert numbers(await post(builtin, path, **head)) == pytest.approx(right, abs=1e-5)
    assert numbers(await post(builtin, path, **tail)) == pytest.approx(left, abs=1e-5)
    assert whole != right
    assert whole == numbers(await post(builtin, path, **body, truncate_prompt_tokens=-1))


@pytest.mark.parametrize("path", LONG_TEXTS)
@pytest.mark.parametrize(
    ("field", "value"),
    [*(("truncate_prompt_tokens", limit) for limit in (0, -2, 2, "x")), ("truncation_side", "middle")],
)
async def test_a_limit_that_leaves_no_text_is_refused(
    path: str, field: str, value: object, builtin: httpx.AsyncClient
) -> None:
    answer = await builtin.post(path, json={**LONG_TEXTS[path], field: value})

    assert 400 == answer.status_code
    assert field in answer.text or "2 tokens" in answer.text


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/score"])
async def test_the_query_is_cut_to_max_tokens_per_query(path: str, builtin: httpx.AsyncClient) -> None:
    sides = {"text_2": ["dog", "bird"]} if path == "/score" else {"model": "all-minilm", "documents": ["dog", "bird"]}
    name = "text_1" if path == "/score" else "query"

    cut = await post(builtin, path, **{name: "cat dog bird"}, **sides, max_tokens_per_query=1)

    short = await post(builtin, path, **{name: "cat"}, **sides)
    whole = await post(builtin, path, **{name: "cat dog bird"}, **sides, max_tokens_per_query=0)

    assert numbers(short) == pytest.approx(numbers(cut), abs=1e-6)
    assert numbers(whole) != pytest.approx(numbers(cut), abs=1e-3)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/embeddings", {"max_tokens_per_query": 4}),
        ("/v1/embeddings", {"max_tokens_per_doc": 4}),
        ("/v1/embeddings", {"late_chunking_params": {"chunk_size": 5}}),
        ("/v1/embeddings", {"embed_dtype": "float64"}),
        ("/v1/embeddings", {"endianness": "middle"}),
        ("/v1/embeddings", {"token_ids": "theirs"}),
        ("/v1/embeddings", {"use_activation": True, "normalize": False}),
        ("/pooling", {"late_chunking_params": {"chunk_size": 5}}),
        ("/pooling", {"embed_dtype": "int8"}),
        ("/pooling", {"task": "token_embed", "dimensions": 4}),
        ("/tokenize", {"prompt": "a cat", "truncate_prompt_tokens": 2}),
    ],
    ids=str,
)
async def test_what_is_not_honored_is_refused_by_name(
    path: str, field: dict[str, Any], builtin: httpx.AsyncClient
) -> None:
    answer = await builtin.post(path, json={"model": "all-minilm", "input": "a cat", **field})

    assert 400 == answer.status_code
    assert [*field][-1] in answer.text


@pytest.mark.parametrize("path", ["/v1/embeddings", "/pooling"])
@pytest.mark.parametrize("endianness", ["big", "little", "native"])
@pytest.mark.parametrize(
    ("embed_dtype", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2), ("fp8_e4m3", 1), ("fp8_e5m2", 1)]
)
async def test_base64_and_bytes_have_the_type_and_order_that_were_asked_for(
    path: str, endianness: str, embed_dtype: str, size: int, builtin: httpx.AsyncClient
) -> None:
    body = {"model": "all-minilm", "input": ["a cat", "a dog"], "embed_dtype": embed_dtype, "endianness": endianness}
    key = "embedding" if path == "/v1/embeddings" else "data"
    plain = await post(builtin, path, **body)
    expected = np.array([item[key] for item in plain["data"]], np.float32)

    encoded = await post(builtin, path, **body, encoding_format="base64")
    binary = await builtin.post(path, json=body | {"encoding_format": "bytes"})
    alone = await builtin.post(path, json=body | {"encoding_format": "bytes_only"})

    raw = b"".join(base64.b64decode(item[key]) for item in encoded["data"])
    metadata = json.loads(binary.headers["metadata"])
    assert raw == binary.content == alone.content
    assert size * 2 * 384 == len(raw)
    assert np.allclose(expected, decoded(raw, embed_dtype, endianness).reshape(2, 384), atol=4e-3 if size > 1 else 2e-2)
    assert [(0, 384 * size), (384 * size, 768 * size)] == [(item["start"], item["end"]) for item in metadata["data"]]
    assert plain["usage"]["total_tokens"] == metadata["usage"]["total_tokens"]
    assert "metadata" not in alone.headers


def decoded(raw: bytes, dtype: str, endianness: str) -> np.ndarray[Any, Any]:
    order = ">" if endianness == "big" else "<"
    if dtype.startswith("fp8"):
        kind = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}[dtype]
        return torch.frombuffer(bytearray(raw), dtype=kind).to(torch.float32).numpy()
    if dtype == "bfloat16":
        return (np.frombuffer(raw, f"{order}u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, f"{order}f{4 if dtype == 'float32' else 2}")


@pytest.mark.parametrize("field", ["use_activation", "activation", "normalize"])
async def test_vectors_without_the_last_step_have_their_own_length(field: str, builtin: httpx.AsyncClient) -> None:
    plain = np.array(numbers(await post(builtin, "/v1/embeddings", **EMBEDDINGS)))
    without = np.array(numbers(await post(builtin, "/v1/embeddings", **EMBEDDINGS, **{field: False})))

    assert 1 == pytest.approx(np.linalg.norm(plain), abs=1e-5)
    assert abs(np.linalg.norm(without) - 1) > 0.1
    assert np.allclose(plain, without / np.linalg.norm(without), atol=1e-5)


async def test_pooling_returns_what_its_task_names(builtin: httpx.AsyncClient) -> None:
    ids = (await post(builtin, "/tokenize", prompt="a cat"))["tokens"]

    vector = np.array(numbers(await post(builtin, "/v1/embeddings", model="all-minilm", input="a cat")))
    embedded, default = [
        (await post(builtin, "/pooling", input=ids, **task))["data"][0]["data"] for task in ({"task": "embed"}, {})
    ]
    tokens = np.array((await post(builtin, "/pooling", input=[ids], task="token_embed"))["data"][0]["data"])

    assert np.allclose(vector, embedded, atol=1e-5)
    assert embedded == default
    assert (4, 384) == tokens.shape
    assert np.allclose(np.linalg.norm(tokens, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        ("classifier", "embed", "Unsupported task: 'embed'"),
        ("classifier", "token_embed", "Unsupported task: 'token_embed'"),
        ("all-minilm", "classify", "Unsupported task: 'classify'"),
        ("all-minilm", "token_classify", "Unsupported task: 'token_classify'"),
        ("all-minilm", "plugin", "No IOProcessor plugin installed."),
    ],
)
async def test_a_task_that_the_model_lacks_is_refused_in_vllm_s_words(
    model: str, task: str, message: str, every_kind: Litestar
) -> None:
    async with calling(every_kind) as client:
        answer = await client.post("/pooling", json={"model": model, "input": "cat", "task": task})

    error = answer.json()["error"]
    assert (400, "BadRequestError") == (answer.status_code, error["type"])
    assert error["message"].startswith(message)


@pytest.mark.parametrize("field", ["embed_dtype", "endianness"])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/pooling"])
async def test_an_unknown_value_is_named_with_vllm_s_kind_of_error(
    path: str, field: str, builtin: httpx.AsyncClient
) -> None:
    answer = await builtin.post(path, json={"model": "all-minilm", "input": "cat", field: "bad"})

    assert 400 == answer.status_code
    assert {"bad", "literal_error"} <= {
        *answer.json()["error"]["message"].replace("'", " ").strip(")").replace("(", "").split()
    }


@pytest.mark.parametrize("path", ["/score", "/rerank", "/pooling"])
async def test_the_reply_s_id_ends_with_the_request_s_own(path: str, builtin: httpx.AsyncClient) -> None:
    answer = await post(builtin, path, **LONG_TEXTS[path], request_id="mine")

    assert answer["id"].endswith("-mine")


async def test_classify_takes_the_model_s_token_ids_and_cuts_texts(every_kind: Litestar) -> None:
    async with calling(every_kind) as client:
        ids = (await post(client, "/tokenize", model="classifier", prompt="cat dog"))["tokens"]
        texts = await post(client, "/classify", input="cat dog")
        tokens = await post(client, "/classify", input=ids)
        several = await post(client, "/classify", input=[ids, ids])
        cut = await post(client, "/classify", input=LONG, truncate_prompt_tokens=5)
        pooled = await post(client, "/pooling", model="classifier", task="classify", input=ids)

    assert texts["data"] == tokens["data"] == several["data"][:1]
    assert 5 == cut["usage"]["prompt_tokens"]
    assert texts["data"][0]["probs"] == pytest.approx(pooled["data"][0]["data"], abs=1e-6)


async def test_token_ids_are_openai_s_unless_the_request_or_the_model_s_setting_differs(
    builtin: httpx.AsyncClient,
) -> None:
    """LangChain sends cl100k under any name; vLLM's callers send the model's own."""
    own = (await post(builtin, "/tokenize", prompt="hello world"))["tokens"]
    text = numbers(await post(builtin, "/v1/embeddings", model="all-minilm", input="hello world"))
    models = (ModelSettings(name=BUILTIN_MODEL, token_ids="model"),)

    found = [
        numbers(await post(builtin, "/v1/embeddings", model="all-minilm", **body))
        for body in (
            {"input": [15339, 1917]},
            {"input": [15339, 1917], "token_ids": "openai"},
            {"input": own, "token_ids": "model"},
            {"input": [own], "token_ids": "model"},
        )
    ]
    async with running(Settings(models=models, engine="torch", device="cpu")) as app, calling(app) as client:
        found.append(numbers(await post(client, "/v1/embeddings", model="all-minilm", input=own)))
        openai = {"input": [[15339, 1917]], "token_ids": "openai"}
        found.append(numbers(await post(client, "/v1/embeddings", model="all-minilm", **openai)))
        info = (await client.get("/info")).json()["models"][0]

    assert [text] * 6 == [pytest.approx(vector, abs=1e-5) for vector in found]
    assert "model" == info["token_ids"]


@pytest.mark.parametrize("path", ["/rerank", "/score"])
@pytest.mark.parametrize("field", ["max_tokens_per_doc", "max_tokens_per_query"])
async def test_a_negative_limit_is_refused_in_vllm_s_words(path: str, field: str, builtin: httpx.AsyncClient) -> None:
    answer = await builtin.post(path, json=LONG_TEXTS[path] | {field: -5})

    assert 400 == answer.status_code
    assert f"{field} must be a non-negative integer" in answer.text


async def test_a_multi_vector_model_needs_its_special_tokens(every_kind: Litestar) -> None:
    async with calling(every_kind) as client:
        body = {"model": "colbert", "input": "a cat", "task": "token_embed", "add_special_tokens": False}
        answer = await client.post("/pooling", json=body)

    assert 400 == answer.status_code
    assert "add_special_tokens: this model needs its special tokens" in answer.text


@pytest.mark.parametrize("path", ["/score", "/v1/score", "/invocations"])
async def test_the_sides_of_pairs_may_be_objects_with_parts_of_text(path: str, builtin: httpx.AsyncClient) -> None:
    part = {"type": "text", "text": "dog"}
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    bodies: list[dict[str, Any]] = [
        {"data_1": {"content": [{"type": "text", "text": "cat"}]}, "data_2": ["dog"]},
        {"queries": "cat", "documents": {"content": [part]}},
        {"queries": "cat", "items": [{"content": [part]}]},
        {"text_1": {"text": "cat"}, "text_2": [{"content": "dog"}]},
    ]
    wanted = numbers(await post(builtin, path, text_1="cat", text_2="dog"))

    found = [numbers(await post(builtin, path, **body)) for body in bodies]
    refused = await builtin.post(path, json={"queries": "cat", "documents": ["dog", {"content": [part, image]}]})

    assert [wanted] * len(bodies) == found
    assert 400 == refused.status_code
    assert "documents[1].content: the models here read text only" in refused.text
