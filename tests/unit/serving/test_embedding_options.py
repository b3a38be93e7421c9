"""Options of an embedding request besides its texts: their role, how they are cut, and the R of their bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoints import write_files, write_transformer
from conftest import calling, running

from nearfar import ModelSettings, Settings
from nearfar.serving.postprocess.quantization import quantize

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.anyio

PROMPTS = {"query": "a query, ", "document": "a document; ", "Clustering": "numbers ", "web": "a question? "}
EMBED = {"model": "embed-v4.0", "input_type": "search_document"}


async def embed(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v2/embed", json={**EMBED, **fields})
    assert 200 == answer.status_code, answer.text
    found: dict[str, Any] = answer.json()["embeddings"]
    return found


@pytest.mark.parametrize(
    ("input_type", "prompt"),
    [
        ("search_query", "a query, "),
        ("search_document", "a document; "),
        ("clustering", "numbers "),
        ("classification", "a question? "),  # the default, as the model has none of its own
    ],
)
async def test_an_input_type_chooses_the_prompt(input_type: str, prompt: str, bert: Path) -> None:
    write_files(bert, {"config_sentence_transformers.json": {"prompts": PROMPTS, "default_prompt_name": "web"}})

    async with running(Settings(models=(ModelSettings(name=str(bert), engine="fake"),))) as app:
        async with calling(app) as client:
            await embed(client, input_type=input_type, texts=["dog"])
        (served,) = app.state.fleet.models()
        _, embedded = served.lane._engine.batches  # the probe first

    assert served.encoder.encode([prompt + "dog"]) == embedded


async def test_without_an_input_type_version_1_has_the_default_prompt(bert: Path) -> None:
    write_files(bert, {"config_sentence_transformers.json": {"prompts": PROMPTS, "default_prompt_name": "web"}})

    async with running(Settings(models=(ModelSettings(name=str(bert), engine="fake"),))) as app:
        async with calling(app) as client:
            await client.post("/v1/embed", json={"texts": ["dog"]})
        (served,) = app.state.fleet.models()
        _, embedded = served.lane._engine.batches

    assert served.encoder.encode(["a question? dog"]) == embedded


async def test_start_keeps_the_end_of_a_text_and_end_its_start(builtin: httpx.AsyncClient) -> None:
    first, last = "cats " * 254, "dogs " * 254

    start = await embed(builtin, texts=[first + last, last], truncate="START")
    end = await embed(builtin, texts=[first + last, first], truncate="END")

    np.testing.assert_allclose(start["float"][0], start["float"][1], atol=1e-5)
    np.testing.assert_allclose(end["float"][0], end["float"][1], atol=1e-5)
    assert not np.allclose(start["float"][0], end["float"][0], atol=0.1)


async def test_bytes_are_made_of_the_floats_by_the_published_range(builtin: httpx.AsyncClient) -> None:
    published = (await builtin.get("/info")).json()["models"][0]["int8_range"]

    for dimensions, spread in ((384, published), (96, published * 2)):
        found = await embed(
            builtin,
            texts=["a cat", "a truck"],
            output_dimension=dimensions,
            embedding_types=["float", "int8", "uint8", "binary", "ubinary"],
        )
        floats = np.array(found["float"], dtype=np.float32)
        np.testing.assert_allclose([1, 1], np.linalg.norm(floats, axis=1), atol=1e-6)
        assert quantize(floats, "int8", spread).tolist() == found["int8"]
        assert quantize(floats, "uint8", spread).tolist() == found["uint8"]
        assert quantize(floats, "binary", None).tolist() == found["binary"]
        assert quantize(floats, "ubinary", None).tolist() == found["ubinary"]


async def test_what_else_is_in_a_request_moves_no_byte(builtin: httpx.AsyncClient) -> None:
    alone = await embed(builtin, texts=["a cat"], embedding_types=["int8"])
    together = await embed(builtin, texts=["a cat", "stock prices fell " * 20, "x"], embedding_types=["int8"])

    apart = np.array(alone["int8"][0]) - np.array(together["int8"][0])
    assert np.abs(apart).max() <= 1  # the batch moves a float by 1e-7, which may be an edge
    assert (apart == 0).mean() > 0.99


async def test_a_large_reply_is_the_same_as_a_small_one(faked: httpx.AsyncClient) -> None:
    texts = [f"text {number}" for number in range(200)]  # 76,800 numbers a type, which are rendered on a thread
    kinds = ["int8", "base64", "float"]

    large = await embed(faked, texts=texts, embedding_types=kinds)
    small = await embed(faked, texts=texts[150:151], embedding_types=kinds)

    assert {kind: rows[150:151] for kind, rows in large.items()} == small


async def test_the_range_may_be_set(bert: Path) -> None:
    model = ModelSettings(name=str(bert), engine="fake", int8_range=0.05)
    async with running(Settings(models=(model,))) as app, calling(app) as client:
        found = await embed(client, texts=["dog"], embedding_types=["float", "int8"])
        (listed,) = (await client.get("/v1/models")).json()["data"]

    assert 0.05 == listed["int8_range"]
    assert quantize(np.array(found["float"], dtype=np.float32), "int8", 0.05).tolist() == found["int8"]


async def test_vectors_of_no_fixed_length_have_bits_and_floats_but_bytes_only_by_a_range_that_is_set(
    tmp_path: Path,
) -> None:
    folder = write_transformer(tmp_path / "unnormalised", "bert")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    write_files(folder, {"modules.json": modules, "1_Pooling/config.json": pooling})

    model = ModelSettings(name=str(folder), engine="torch", device="cpu")
    async with running(Settings(models=(model,))) as app, calling(app) as client:
        (listed,) = (await client.get("/v1/models")).json()["data"]
        found = await embed(client, texts=["dog"], embedding_types=["float", "binary"])
        refused = await client.post("/v2/embed", json={**EMBED, "texts": ["dog"], "embedding_types": ["int8"]})

    assert listed["int8_range"] is None
    assert not math.isclose(1, float(np.linalg.norm(found["float"][0])), abs_tol=0.01)
    assert 4 == len(found["binary"][0])
    assert 400 == refused.status_code
    assert "int8_range" in refused.json()["message"]
