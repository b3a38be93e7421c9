"""TEI's protocol where the answer depends on the model's task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoints import write_transformer
from conftest import calling, running
from huggingface_hub import TextClassificationOutputElement

from nearfar import ModelSettings, Settings, create_app
from nearfar.core.settings import BUILTIN_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    import httpx
    from litestar import Litestar

pytestmark = pytest.mark.anyio


async def ask(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await client.post(path, json=body)
    assert 200 == response.status_code, response.text
    return response.json()


@pytest.mark.parametrize("path", ["/", "/invocations"])
@pytest.mark.parametrize(
    ("model", "route"),
    [
        (BUILTIN_MODEL, "/embed"),
        ("colbert", "/embed_all"),
        ("splade", "/embed_sparse"),
        ("classifier", "/predict"),
        (None, "/embed"),
    ],
)
async def test_a_generic_route_runs_the_model_s_task(
    model: str | None, route: str, path: str, every_kind: Litestar
) -> None:
    async with calling(every_kind) as client:
        expected = await ask(client, route, inputs="the quick fox", model=model)

        found = await ask(client, path, inputs="the quick fox", model=model)

    assert expected == found


async def test_instances_may_be_for_several_models(every_kind: Litestar) -> None:
    instances = [{"inputs": "fox", "model": model} for model in ("classifier", "splade", BUILTIN_MODEL)]
    async with calling(every_kind) as client:
        expected = [
            await ask(client, route, inputs="fox", model=instance["model"])
            for route, instance in zip(("/predict", "/embed_sparse", "/embed"), instances, strict=True)
        ]

        found = await ask(client, "/vertex", instances=instances)

    for one, other in zip(expected, found["predictions"], strict=True):
        assert one == other or np.allclose(one, other, atol=1e-6)


async def test_hugging_face_s_client_receives_all_labels_of_a_text(every_kind: Litestar) -> None:
    """It sends ``parameters`` and reads the first item of a list; TEI's own clients get the labels without one."""
    async with calling(every_kind) as client:
        plain = await ask(client, "/predict", inputs="fox", model="classifier")
        body = {"inputs": "fox", "model": "classifier"}
        answer = await client.post("/predict", json={**body, "parameters": {}})
        best = await ask(client, "/", **body, parameters={"top_k": 1})
        raw = await ask(client, "/predict", **body, parameters={"function_to_apply": "none"})
        logits = await ask(client, "/predict", **body, raw_scores=True)

    elements: Any = TextClassificationOutputElement.parse_obj_as_list(answer.content)[0]
    assert [(one["label"], one["score"]) for one in plain] == [(one.label, one.score) for one in elements]
    assert [plain[:1]] == best
    assert [logits] == raw


@pytest.mark.parametrize(
    "path",
    [
        "/models/classifier",
        "/hf-inference/models/classifier",
        "/hf-inference/models/classifier/pipeline/text-classification",
        "/pipeline/text-classification/classifier",
    ],
)
async def test_a_classifier_at_the_hub_s_paths_returns_a_list_of_labels_for_each_text(
    path: str, every_kind: Litestar
) -> None:
    async with calling(every_kind) as client:
        labels = await ask(client, "/predict", inputs="fox", model="classifier")

        single = await ask(client, path, inputs="fox")
        best = await ask(client, path, inputs=["fox", "dog"], parameters={"top_k": 1})

    assert [labels] == single
    assert [labels[0]["label"], 2] == [best[0][0]["label"], len(best)]
    assert labels[0]["score"] == pytest.approx(best[0][0]["score"], abs=1e-6)


async def test_two_texts_at_the_hub_s_paths_are_no_pair(every_kind: Litestar) -> None:
    async with calling(every_kind) as client:
        each = await ask(client, "/predict", inputs=[["fox"], ["dog"]], model="classifier")

        found = await ask(client, "/models/classifier", inputs=["fox", "dog"])

    assert each == found


async def test_an_unknown_task_and_an_unknown_model_at_the_hub_s_paths_are_refused(every_kind: Litestar) -> None:
    async with calling(every_kind) as client:
        task = await client.post(f"/models/{BUILTIN_MODEL}/pipeline/fill-mask", json={"inputs": "fox"})
        model = await client.post("/models/gpt2", json={"inputs": "fox"})

    assert 422 == task.status_code
    assert "`fill-mask` isn't one of this path's tasks: feature-extraction" in task.json()["error"]
    assert 404 == model.status_code
    assert "gpt2" in model.json()["error"]


@pytest.mark.parametrize("top_k", [0, -1])
async def test_a_top_k_below_1_is_refused(top_k: int, every_kind: Litestar) -> None:
    async with calling(every_kind) as client:
        response = await client.post("/predict", json={"inputs": "fox", "parameters": {"top_k": top_k}})

    assert 422 == response.status_code
    assert "top_k" in response.json()["error"]


async def test_a_reranker_s_scores_are_sigmoids_unless_raw(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "reranker", "bert", labels=1)
    body = {"query": "a fox", "texts": ["a dog", "a lazy fox"]}
    settings = Settings(models=(ModelSettings(name=str(folder), engine="torch"),), device="cpu", dtype="float32")
    async with running(settings) as app, calling(app) as client:
        mapped = await ask(client, "/rerank", **body)
        raw = await ask(client, "/", **body, raw_scores=True)
        labels = await ask(client, "/predict", inputs=["a fox", "a lazy fox"])
        about = (await client.get("/info")).json()
        health = (await client.get("/health")).json()

    by_index = {one["index"]: one["score"] for one in mapped}
    for one in raw:
        assert 1 / (1 + np.exp(-one["score"])) == pytest.approx(by_index[one["index"]], abs=1e-6)
    assert [{"label": "LABEL_0", "score": pytest.approx(by_index[1], abs=1e-6)}] == labels
    assert {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}} == about["model_type"]
    assert "backend" not in health
    assert "reranker" == health["reranker"]["model_name"]


async def test_info_during_startup_describes_no_default_model(tmp_path: Path) -> None:
    app = create_app(Settings(models=(ModelSettings(name=str(tmp_path / "nothing")),)))
    async with calling(app) as client:
        about = (await client.get("/info")).json()

    assert ["models", "name", "version"] == sorted(about)


@pytest.mark.parametrize("path", ["/health", "/ping"])
async def test_a_server_that_is_not_ready_is_unhealthy(path: str) -> None:
    async with calling(create_app(Settings(engine="fake"))) as client:
        response = await client.get(path)

    assert (503, "Unhealthy") == (response.status_code, response.json()["error_type"])


@pytest.mark.parametrize("path", ["/", "/health", "/ping"])
async def test_health_answers_head_requests(path: str, faked: httpx.AsyncClient) -> None:
    response = await faked.head(path)

    assert 200 == response.status_code
