"""Scores as they are asked for: sorted or pair by pair, in [0, 1] or raw; and the same texts compared by any route."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoints import write_files, write_transformer
from conftest import calling, running
from sentence_transformers import CrossEncoder

from nearfar import ModelSettings, Settings
from nearfar.core.caller import ANONYMOUS
from nearfar.core.errors import EmptyInput, EngineError
from nearfar.core.jobs import RankJob, ScoreJob
from nearfar.core.settings import BUILTIN_MODEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx
    from litestar import Litestar
    from sentence_transformers import SentenceTransformer

    from nearfar.serving.service import Service

pytestmark = pytest.mark.anyio

QUERY = "the quick brown fox"
DOCUMENTS = ("jumps over the lazy dog", "a question? an answer!", "numbers 0 1 2", "the quick brown fox")


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_transformer(tmp_path_factory.mktemp("models") / "reranker", "bert", labels=1)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    names = ["input_ids", "token_type_ids", "attention_mask"]  # as BERT's own tokenizers do
    return write_files(folder, {"tokenizer_config.json": {**tokenizer, "model_input_names": names}})


@pytest.fixture(scope="module")
async def both(reranker: Path) -> AsyncIterator[Litestar]:
    models = (ModelSettings(name=BUILTIN_MODEL), ModelSettings(name=str(reranker)))
    async with running(Settings(models=models, engine="torch", device="cpu")) as app:
        yield app


@pytest.fixture
def service(both: Litestar) -> Service:
    found: Service = both.state.service
    return found


@pytest.fixture
async def client(both: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(both) as client:
        yield client


@pytest.fixture(scope="module")
def logits(reranker: Path) -> np.ndarray[Any, Any]:
    from torch.nn import Identity

    model = CrossEncoder(str(reranker), device="cpu", local_files_only=True, activation_fn=Identity())
    found: np.ndarray[Any, Any] = model.predict([(QUERY, text) for text in DOCUMENTS], show_progress_bar=False)
    return found


@pytest.fixture(scope="module")
def cosines(reference: SentenceTransformer) -> np.ndarray[Any, Any]:
    query, *documents = reference.encode([QUERY, *DOCUMENTS], show_progress_bar=False)
    return np.array([query @ document for document in documents])


async def test_raw_ranks_of_a_cross_encoder_are_its_logits(service: Service, logits: np.ndarray[Any, Any]) -> None:
    ranked = await service.rank(RankJob(model="reranker", query=QUERY, documents=DOCUMENTS, raw_scores=True), ANONYMOUS)

    found = {result.index: result.score for result in ranked.results}
    np.testing.assert_allclose(logits, [found[index] for index in range(4)], atol=1e-5)
    assert sorted(found.values(), reverse=True) == [*found.values()]


async def test_raw_ranks_of_an_embedding_model_are_cosines(service: Service, cosines: np.ndarray[Any, Any]) -> None:
    job = RankJob(model=BUILTIN_MODEL, query=QUERY, documents=DOCUMENTS, raw_scores=True)

    ranked = await service.rank(job, ANONYMOUS)

    found = {result.index: result.score for result in ranked.results}
    np.testing.assert_allclose(cosines, [found[index] for index in range(4)], atol=1e-5)


async def test_ranks_are_between_0_and_1_unless_raw_ones_are_asked_for(
    service: Service, logits: np.ndarray[Any, Any], cosines: np.ndarray[Any, Any]
) -> None:
    by_pairs = await service.rank(RankJob(model="reranker", query=QUERY, documents=DOCUMENTS), ANONYMOUS)
    by_vectors = await service.rank(RankJob(model=BUILTIN_MODEL, query=QUERY, documents=DOCUMENTS), ANONYMOUS)

    expected = [1 / (1 + np.exp(-logits)), (1 + cosines) / 2]
    for ranked, scores in zip([by_pairs, by_vectors], expected, strict=True):
        found = {result.index: result.score for result in ranked.results}
        np.testing.assert_allclose(scores, [found[index] for index in range(4)], atol=1e-5)


@pytest.mark.parametrize("side", ["activation", "use_activation"])
async def test_score_gives_a_cross_encoders_sigmoid_or_its_logit(
    client: httpx.AsyncClient, logits: np.ndarray[Any, Any], side: str
) -> None:
    body = {"model": "reranker", "text_1": QUERY, "text_2": DOCUMENTS}

    plain = (await client.post("/v1/score", json=body)).json()
    raw = (await client.post("/v1/score", json={**body, side: False})).json()
    activated = (await client.post("/v1/score", json={**body, side: True})).json()

    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), [one["score"] for one in plain["data"]], atol=1e-5)
    np.testing.assert_allclose(logits, [one["score"] for one in raw["data"]], atol=1e-5)
    assert plain["data"] == activated["data"]


async def test_score_gives_an_embedding_models_cosine_as_vllm_does(
    client: httpx.AsyncClient, cosines: np.ndarray[Any, Any]
) -> None:
    body = {"model": BUILTIN_MODEL, "queries": QUERY, "documents": DOCUMENTS}

    answers = [await client.post("/score", json={**body, "use_activation": use}) for use in (None, True, False)]

    for answer in answers:
        assert [0, 1, 2, 3] == [one["index"] for one in answer.json()["data"]]
        np.testing.assert_allclose(cosines, [one["score"] for one in answer.json()["data"]], atol=1e-5)


@pytest.mark.parametrize("model", [BUILTIN_MODEL, "reranker"])
async def test_many_queries_are_each_scored_with_their_own_document(client: httpx.AsyncClient, model: str) -> None:
    queries = [QUERY, QUERY, "a question", QUERY]

    together = await client.post("/score", json={"model": model, "text_1": queries, "text_2": DOCUMENTS})
    each = [
        await client.post("/score", json={"model": model, "text_1": query, "text_2": document})
        for query, document in zip(queries, DOCUMENTS, strict=True)
    ]

    expected = [answer.json()["data"][0]["score"] for answer in each]
    np.testing.assert_allclose(expected, [one["score"] for one in together.json()["data"]], atol=1e-5)


async def test_score_counts_what_the_model_read_and_cuts_documents_when_asked(client: httpx.AsyncClient) -> None:
    body = {"model": "reranker", "text_1": QUERY, "text_2": "jumps over the lazy dog"}

    whole = await client.post("/score", json=body)
    cut = await client.post("/score", json={**body, "max_tokens_per_doc": 2})
    none = await client.post("/score", json={**body, "max_tokens_per_doc": 0})

    less = int(cut.headers["x-nearfar-truncated-tokens"])
    assert less > 0
    assert whole.json()["usage"]["prompt_tokens"] - less == cut.json()["usage"]["prompt_tokens"]
    assert whole.json()["data"] == none.json()["data"]


async def test_similarity_is_the_cosine(client: httpx.AsyncClient, cosines: np.ndarray[Any, Any]) -> None:
    body = {"model": BUILTIN_MODEL, "inputs": {"source_sentence": QUERY, "sentences": DOCUMENTS}}

    answer = await client.post("/similarity", json=body)

    np.testing.assert_allclose(cosines, answer.json(), atol=1e-5)


async def test_a_cross_encoder_has_no_similarity(client: httpx.AsyncClient) -> None:
    body = {"model": "reranker", "inputs": {"source_sentence": QUERY, "sentences": DOCUMENTS}}

    answer = await client.post("/similarity", json=body)

    assert 422 == answer.status_code
    assert {"error": "model reranker is not an embedding model", "error_type": "Validation"} == answer.json()


async def test_nothing_to_compare_is_refused(service: Service) -> None:
    with pytest.raises(EmptyInput):
        await service.score(ScoreJob(model=None, pairs=()), ANONYMOUS)


async def test_models_report_what_their_scores_mean(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()["data"]
    described = (await client.get("/info")).json()["models"]

    assert [False, True] == [model["score_is_probability"] for model in listed]
    assert [0.204124, None] == [model["int8_range"] for model in listed]
    for key in ("score", "score_is_probability", "int8_range"):
        assert [model[key] for model in described] == [model[key] for model in listed]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("fault", ["nan", "zero", "boom"])
async def test_a_score_that_is_no_number_is_a_failure_and_never_an_answer(fault: str, *, raw: bool) -> None:
    async with running(Settings(engine="fake")) as app:
        service: Service = app.state.service

        with pytest.raises(EngineError):
            await service.rank(RankJob(model=None, query="fine", documents=("fine", fault), raw_scores=raw), ANONYMOUS)
        with pytest.raises(EngineError):
            await service.score(
                ScoreJob(model=None, pairs=(("fine", "fine"), (fault, "fine")), raw_scores=raw), ANONYMOUS
            )


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/similarity", {"inputs": {"source_sentence": "nan", "sentences": ["a"]}}, 424, "Backend"),
        ("/score", {"text_1": "a", "text_2": "nan"}, 500, "InternalServerError"),
    ],
)
async def test_an_engine_error_has_the_format_of_the_route(
    path: str, body: dict[str, Any], status: int, kind: str
) -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        answer = await client.post(path, json=body)

    assert status == answer.status_code
    assert kind in answer.text
