"""Jina's tasks, vector types, late chunking and document lengths."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import calling, running

from nearfar import ModelSettings, Settings
from nearfar.core.settings import BUILTIN_MODEL

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.anyio

TEXTS = ["the cat sat on the mat", "a truck"]
PROMPTS = {"query": "seek: ", "document": "keep: ", "classification": "sort: ", "clustering": "heap: ", "STS": "like: "}


async def embed(client: httpx.AsyncClient, path: str = "/jina/v1/embeddings", **fields: Any) -> list[Any]:
    response = await client.post(path, json={"model": BUILTIN_MODEL, "input": TEXTS, **fields})
    assert 200 == response.status_code, response.text
    return [one["embedding"] for one in response.json()["data"]]


@pytest.mark.parametrize("path", ["/jina/v1/embeddings", "/v1/embeddings", "/embeddings"])
async def test_the_task_chooses_the_prompt(path: str) -> None:
    tasks = {
        "retrieval.query": "query",
        "retrieval.passage": "document",
        "text-matching": "STS",
        "classification": "classification",
        "separation": "clustering",
        "clustering": "clustering",
        "code.query": "query",
        "code2nl.passage": "document",
    }
    model = ModelSettings(name=BUILTIN_MODEL, prompts=PROMPTS)
    async with running(Settings(models=(model,), engine="fake")) as app, calling(app) as client:
        for task, name in tasks.items():
            prompted = await embed(client, input=[PROMPTS[name] + text for text in TEXTS])

            assert prompted == await embed(client, path, task=task), task
        assert await embed(client) == await embed(client, path, task=None)


async def test_types_are_of_the_same_vectors_with_the_bits_of_cohere(faked: httpx.AsyncClient) -> None:
    body = {"model": BUILTIN_MODEL, "texts": TEXTS, "input_type": "clustering"}
    wanted = ["float", "binary", "ubinary"]
    cohere = (await faked.post("/v2/embed", json=body | {"embedding_types": wanted})).json()["embeddings"]

    alone = {kind: await embed(faked, embedding_type=kind) for kind in wanted}
    together = await embed(faked, embedding_type=["ubinary", "base64", "float"])

    assert cohere == alone
    assert [["ubinary", "base64", "float"]] * 2 == [list(one) for one in together]
    assert cohere["ubinary"] == [one["ubinary"] for one in together]
    floats = [np.frombuffer(base64.b64decode(one["base64"], validate=True), "<f4") for one in together]
    np.testing.assert_array_equal(np.array(cohere["float"], dtype=np.float32), floats)


async def test_the_first_field_with_a_type_wins(faked: httpx.AsyncClient) -> None:
    ubinary = await embed(faked, embedding_type="ubinary")

    assert ubinary == await embed(faked, embedding_type="ubinary", encoding_type="float", encoding_format="base64")
    assert ubinary == await embed(faked, embedding_type=None, encoding_type="ubinary", encoding_format="base64")
    assert isinstance((await embed(faked, encoding_format="base64"))[0], str)
    assert isinstance((await embed(faked, embedding_type=[]))[0], list)


async def test_a_body_with_fields_of_jina_and_voyage_goes_to_jina(faked: httpx.AsyncClient) -> None:
    both = {"model": BUILTIN_MODEL, "input": TEXTS, "normalized": True, "output_dtype": "float", "input_type": ""}

    found = await faked.post("/v1/embeddings", json=both)
    refused = await faked.post("/v1/embeddings", json=both | {"model": "nobody"})

    assert ["total_tokens", "prompt_tokens"] == list(found.json()["usage"])
    assert isinstance(found.json()["data"][0]["embedding"][0], float)
    assert "INPUT_MODEL_NOT_FOUND" == refused.json()["code"]


async def test_documents_are_truncated_to_max_doc_length(faked: httpx.AsyncClient) -> None:
    body = {"model": BUILTIN_MODEL, "query": "cat", "documents": ["the cat sat on the mat"]}

    whole, cut = [
        (await faked.post("/jina/v1/rerank", json=body | {"max_doc_length": most})).json()["usage"]["total_tokens"]
        for most in (None, 2)
    ]

    assert 4 == whole - cut


async def test_late_chunking_embeds_chunks_in_context(builtin: httpx.AsyncClient) -> None:
    chunks = ["Berlin is the capital of Germany.", "The city has four million people.", "It lies on the Spree."]

    apart = np.array(await embed(builtin, input=chunks, late_chunking=False))
    together = np.array(await embed(builtin, input=chunks, late_chunking=True))
    over_shared = np.array(await embed(builtin, "/v1/embeddings", input=chunks, late_chunking=True))
    berlin = np.array(await embed(builtin, input="Berlin"))[0]

    np.testing.assert_array_equal(together, over_shared)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert all(together[1:] @ berlin > apart[1:] @ berlin + 0.1)  # the first chunk names the city


async def test_late_chunks_have_dimensions_and_types_like_any_text(builtin: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"late_chunking": True, "task": "retrieval.passage"}

    short = np.array(await embed(builtin, dimensions=64, **body))
    bits = await embed(builtin, dimensions=64, embedding_type="ubinary", **body)

    assert (2, 64) == short.shape
    assert bits == np.packbits(short > 0, axis=1).tolist()


@pytest.mark.parametrize("truncate", [True, False, None])
async def test_late_chunks_that_are_too_long_together_are_refused(
    truncate: bool | None,
    builtin: httpx.AsyncClient,
) -> None:
    body = {"model": BUILTIN_MODEL, "input": ["word " * 200] * 2, "late_chunking": True, "truncate": truncate}

    refused = await builtin.post("/jina/v1/embeddings", json=body)

    assert (400, "INPUT_TOKEN_LIMIT_EXCEEDED") == (refused.status_code, refused.json()["code"])
    assert "400 tokens together; at most 254" in refused.json()["detail"]


async def test_normalized_false_keeps_the_length_of_vectors(builtin: httpx.AsyncClient) -> None:
    unit, same, longer = [np.array(await embed(builtin, normalized=value)) for value in (True, None, False)]

    np.testing.assert_array_equal(unit, same)
    lengths = np.linalg.norm(longer, axis=1, keepdims=True)
    assert all(np.abs(lengths - 1) > 0.1)
    np.testing.assert_allclose(unit, longer / lengths, atol=1e-5)
