"""Token vectors, sparse weights and labels in TEI's and vLLM's protocols, and all of them in our own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoints import write_transformer
from conftest import calling, running
from small_models import write_colbert, write_m3, write_splade

from nearfar import ModelSettings, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.anyio

TEXTS = ["jumps over the lazy dog", "a question? an answer! the quick brown fox", "fox"]


@asynccontextmanager
async def serving(*folders: Path) -> AsyncIterator[httpx.AsyncClient]:
    models = tuple(ModelSettings(name=str(folder), engine="torch") for folder in folders)
    async with running(Settings(models=models, device="cpu")) as app, calling(app) as client:
        yield client


async def ask(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await client.post(path, json=body)
    assert 200 == response.status_code, response.text
    return response.json()


async def test_token_vectors_are_the_same_in_both_protocols(tmp_path: Path) -> None:
    expansion = {"strategy": "fixed", "attend": False, "length": 16}
    model = write_colbert(tmp_path / "colbert", "bert", query_expansion=expansion)

    async with serving(tmp_path / "colbert") as client:
        tei = await ask(client, "/embed_all", inputs=TEXTS)
        query = await ask(client, "/embed_all", inputs=TEXTS[0], prompt_name="query")
        vllm = await ask(client, "/pooling", model="colbert", input=TEXTS)

    for expected, found in zip(model.encode_document(TEXTS), tei, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(query[0], model.encode_query(TEXTS[0]), rtol=0, atol=1e-4)
    for found, one in zip(tei, vllm["data"], strict=True):  # vLLM normalizes once more
        np.testing.assert_allclose(one["data"], found, rtol=0, atol=1e-6)
    assert ("list", "colbert", [0, 1, 2]) == (vllm["object"], vllm["model"], [one["index"] for one in vllm["data"]])
    assert vllm["usage"]["total_tokens"] > 0


async def test_sparse_weights_are_those_of_the_reference(tmp_path: Path) -> None:
    model = write_splade(tmp_path / "splade", "bert")

    async with serving(tmp_path / "splade") as client:
        found = await ask(client, "/embed_sparse", inputs=TEXTS)

    for expected, weights in zip(model.encode(TEXTS, convert_to_sparse_tensor=False).numpy(), found, strict=True):
        assert np.flatnonzero(expected).tolist() == [one["index"] for one in weights]
        np.testing.assert_allclose([one["value"] for one in weights], expected[expected > 0], rtol=0, atol=1e-4)


async def test_represent_returns_all_outputs_or_those_requested(tmp_path: Path) -> None:
    async with serving(write_m3(tmp_path / "bge-m3")) as client:
        whole = await ask(client, "/represent", input=TEXTS)
        part = await ask(client, "/represent", input=TEXTS[1], outputs=["sparse", "dense"], model="bge-m3")
        openai = await ask(client, "/v1/embeddings", input=TEXTS, model="bge-m3")

    first, second = whole["data"][:2]
    assert ["index", "dense", "multi_vector", "token_ids", "sparse"] == list(first)
    np.testing.assert_allclose(first["dense"], openai["data"][0]["embedding"], rtol=0, atol=1e-6)
    assert len(second["multi_vector"][0]) == len(first["dense"])
    assert ["index", "dense", "sparse"] == list(part["data"][0])
    assert second["sparse"]["indices"] == part["data"][0]["sparse"]["indices"]
    assert openai["usage"]["total_tokens"] == whole["usage"]["tokens"]


async def test_represent_returns_only_what_the_model_has(builtin: httpx.AsyncClient) -> None:
    whole = await ask(builtin, "/represent", input=TEXTS)
    openai = await ask(builtin, "/v1/embeddings", input=TEXTS, model="text-embedding-3-small")

    assert [{"index", "dense"}] * 3 == [set(found) for found in whole["data"]]
    for expected, found in zip(openai["data"], whole["data"], strict=True):
        np.testing.assert_allclose(found["dense"], expected["embedding"], rtol=0, atol=1e-6)


async def test_labels_are_the_same_in_both_protocols(tmp_path: Path) -> None:
    names: dict[str, Any] = {"id2label": {0: "no", 1: "maybe", 2: "yes"}, "label2id": {"no": 0, "maybe": 1, "yes": 2}}
    folder = write_transformer(tmp_path / "classifier", "bert", labels=3, **names)

    async with serving(folder) as client:
        vllm = await ask(client, "/classify", model="classifier", input=TEXTS)
        raw = await ask(client, "/classify", model="classifier", input=TEXTS, activation=False)
        one = await ask(client, "/predict", inputs=TEXTS[0])
        pair = await ask(client, "/predict", inputs=[TEXTS[0], TEXTS[1]])
        several = await ask(client, "/predict", inputs=[[TEXTS[0]], [TEXTS[0], TEXTS[1]]])
        logits = await ask(client, "/predict", inputs=TEXTS[0], raw_scores=True)
        infinity = await ask(client, "/classify", model="classifier", input=TEXTS, raw_scores=False)
        infinity_raw = await ask(client, "/classify", model="classifier", input=TEXTS, raw_scores=True)

    by_label = {found["label"]: found["score"] for found in one}
    first = vllm["data"][0]
    assert (3, ["no", "maybe", "yes"]) == (first["num_classes"], sorted(by_label, key=["no", "maybe", "yes"].index))
    assert first["probs"] == [by_label["no"], by_label["maybe"], by_label["yes"]]
    assert first["label"] == one[0]["label"]
    assert 1 == pytest.approx(sum(first["probs"]))
    assert [found["score"] for found in one] == sorted(by_label.values(), reverse=True)
    assert [one, pair] == several
    assert {found["label"]: found["score"] for found in logits} == dict(
        zip(("no", "maybe", "yes"), raw["data"][0]["probs"], strict=True)
    )
    assert ["classify", one, logits] == [infinity["object"], infinity["data"][0], infinity_raw["data"][0]]


REFUSALS = [
    ("/embed_all", {"inputs": []}, 400, "Empty"),
    ("/embed_sparse", {"inputs": "fox"}, 422, "Validation"),
    ("/predict", {"inputs": "fox"}, 422, "Validation"),
    ("/predict", {"inputs": []}, 400, "Empty"),
    ("/predict", {"inputs": [["a", "b", "c"]]}, 422, "Validation"),
    ("/classify", {"input": "fox"}, 400, "BadRequestError"),
    ("/classify", {"input": []}, 400, "BadRequestError"),
    ("/pooling", {"input": "fox", "task": "classify"}, 400, "BadRequestError"),
    ("/represent", {"input": "fox", "outputs": ["sparse"]}, 400, "WrongTask"),
    ("/represent", {"input": "fox", "outputs": ["dense", "sparse"]}, 400, "WrongTask"),
    ("/represent", {"input": []}, 400, "EmptyInput"),
    ("/represent", {"input": "fox", "model": "nobody"}, 404, "ModelNotFound"),
]


@pytest.mark.parametrize(("path", "body", "status", "kind"), REFUSALS)
async def test_an_unsupported_task_is_refused_in_the_format_of_the_dialect(
    path: str, body: dict[str, Any], status: int, kind: str, faked: httpx.AsyncClient
) -> None:
    """The built-in model has one vector for each text, and no labels."""
    response = await faked.post(path, json=body)

    error = response.json()
    kind_found = error.get("error_type") or (
        error["error"]["type"] if isinstance(error["error"], dict) else error["error"]
    )
    assert (status, kind) == (response.status_code, kind_found)
