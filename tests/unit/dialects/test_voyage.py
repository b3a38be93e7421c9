"""Voyage's input types, number types and truncation, and NVIDIA's, which is sent to the same path."""

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
NUMPY = {"float": "<f4", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}


async def embed(client: httpx.AsyncClient, path: str = "/voyage/v1/embeddings", **fields: Any) -> list[Any]:
    response = await client.post(path, json={"model": BUILTIN_MODEL, "input": TEXTS, **fields})
    assert 200 == response.status_code, response.text
    return [one["embedding"] for one in response.json()["data"]]


@pytest.mark.parametrize("dtype", NUMPY)
async def test_numbers_equal_those_of_cohere_and_base64_has_their_bytes(dtype: str, faked: httpx.AsyncClient) -> None:
    body = {"model": BUILTIN_MODEL, "texts": TEXTS, "input_type": "clustering", "embedding_types": [dtype]}
    cohere = (await faked.post("/v2/embed", json=body)).json()["embeddings"][dtype]

    plain = await embed(faked, output_dtype=dtype)
    encoded = await embed(faked, output_dtype=dtype, encoding_format="base64")

    assert cohere == plain
    numbers = [np.frombuffer(base64.b64decode(one, validate=True), NUMPY[dtype]) for one in encoded]
    np.testing.assert_array_equal(np.array(cohere, dtype=NUMPY[dtype]), numbers)


@pytest.mark.parametrize("path", ["/voyage/v1/embeddings", "/v1/embeddings", "/embeddings"])
@pytest.mark.parametrize(
    ("input_type", "prompt"), [("query", "seek: "), ("document", "keep: "), ("passage", "keep: "), (None, "")]
)
async def test_the_input_type_chooses_the_prompt(path: str, input_type: str | None, prompt: str) -> None:
    model = ModelSettings(name=BUILTIN_MODEL, prompts={"query": "seek: ", "document": "keep: "})
    async with running(Settings(models=(model,), engine="fake")) as app, calling(app) as client:
        prompted = await embed(client, "/v1/embeddings", input=[prompt + text for text in TEXTS])

        found = await embed(client, path, input_type=input_type)

    assert prompted == found


async def test_the_field_of_voyage_wins_over_that_of_nvidia(faked: httpx.AsyncClient) -> None:
    long = "word " * 300

    cut = await embed(faked, input=long, truncation=True, truncate="NONE", output_dimension=8, dimensions=16)
    refused = await faked.post(
        "/voyage/v1/embeddings",
        json={"model": BUILTIN_MODEL, "input": long, "truncation": False, "truncate": "END"},
    )

    assert 8 == len(cut[0])
    assert 400 == refused.status_code


async def test_truncate_may_be_a_boolean(faked: httpx.AsyncClient) -> None:
    body = {"model": BUILTIN_MODEL, "input": "word " * 300, "input_type": "query"}

    answers = [await faked.post("/v1/embeddings", json=body | {"truncate": value}) for value in (True, False)]

    assert [200, 400] == [answer.status_code for answer in answers]


async def test_truncate_start_keeps_the_end_and_end_keeps_the_start(faked: httpx.AsyncClient) -> None:
    words = "cat " * 254 + "dog " * 254

    found = {side: await embed(faked, input=words, truncate=side) for side in ("START", "END")}

    assert found["START"] == await embed(faked, input="dog " * 254)
    assert found["END"] == await embed(faked, input="cat " * 254)


async def test_results_repeat_data_on_shared_paths_only(faked: httpx.AsyncClient) -> None:
    body = {"model": BUILTIN_MODEL, "query": "cat", "documents": TEXTS, "top_k": 1}

    own, v1, bare = [
        (await faked.post(path, json=body)).json() for path in ("/voyage/v1/rerank", "/v1/rerank", "/rerank")
    ]

    assert "results" not in own
    assert own["data"] == v1["results"] == v1["data"] == bare["results"]
    assert 1 == len(own["data"])
