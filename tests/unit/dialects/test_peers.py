"""What clients of other servers with these protocols send is answered as their own servers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conftest import calling, running

from nearfar import ModelSettings, Settings
from nearfar.core.settings import BUILTIN_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.anyio

DOCUMENTS = ["a dog", "the cat sat"]
RANKING: dict[str, Any] = {"query": "cat", "documents": DOCUMENTS}
NIM = {"query": {"text": "cat"}, "passages": [{"text": "a dog"}, {"text": "the cat sat"}]}
MESSAGES = [{"role": "user", "content": "hi"}]

# name → path, body, and a path into the reply with the value expected there
ANSWERED: dict[str, tuple[str, dict[str, Any], str, object]] = {
    "no model": ("/v1/embeddings", {"input": "hi"}, "object", "list"),
    "null model": ("/embeddings", {"input": "hi", "model": None}, "object", "list"),
    "TEI's name": ("/v1/embeddings", {"input": "hi", "model": "text-embeddings-inference"}, "object", "list"),
    "TEI's name to rank": (
        "/rerank",
        {"query": "q", "texts": ["a"], "model": "text-embeddings-inference"},
        "0.index",
        0,
    ),
    "Infinity's name": (
        "/embeddings",
        {"input": "hi", "model": "default/not-specified", "dimensions": 0},
        "data.0.index",
        0,
    ),
    "Infinity ranks": ("/rerank", {**RANKING, "raw_scores": False}, "object", "rerank"),
    "Infinity's documents": (
        "/rerank",
        {**RANKING, "raw_scores": False, "return_documents": True},
        "results.0.document",
        "the cat sat",
    ),
    "vLLM's documents": (
        "/rerank",
        {**RANKING, "truncate_prompt_tokens": -1},
        "results.0.document.text",
        "the cat sat",
    ),
    "Dify's top_n": ("/v1/rerank", {**RANKING, "top_n": 0}, "results.1.index", 0),
    "an empty document": ("/v1/rerank", {"query": "cat", "documents": ["the cat", ""]}, "results.1.index", 1),
    "an empty object": ("/v1/rerank", {"query": "cat", "documents": [{"text": ""}, "cat"]}, "results.1.index", 0),
    "docs": ("/rerank", {"query": "cat", "docs": DOCUMENTS}, "results.0.index", 1),
    "PHP's options": ("/api/embed", {"model": "all-minilm", "input": "hi", "options": []}, "model", "all-minilm"),
    "llama.cpp ranks": ("/v1/reranking", RANKING, "results.0.index", 1),
    "llama.cpp ranks too": ("/reranking", RANKING, "results.0.index", 1),
    "llama.cpp embeds": ("/embedding", {"content": ["hi", "ho"]}, "1.index", 1),
    "llama.cpp tokenizes": ("/tokenize", {"content": "a cat"}, "tokens", [1037, 4937]),
    "llama.cpp adds special tokens": ("/tokenize", {"content": "a cat", "add_special": True}, "tokens.0", 101),
    "llama.cpp's pieces": ("/tokenize", {"content": "a cat", "with_pieces": True}, "tokens.1.piece", "cat"),
    "Azure with a model of an owner": (
        "/openai/deployments/sentence-transformers/all-MiniLM-L6-v2/embeddings?api-version=1",
        {"input": "hi"},
        "object",
        "list",
    ),
    "Azure": ("/openai/deployments/text-embedding-3-small/embeddings?api-version=1", {"input": "hi"}, "object", "list"),
    "Azure's v1": ("/openai/v1/embeddings", {"input": "hi", "model": "text-embedding-3-small"}, "object", "list"),
    "SageMaker embeds": ("/invocations", {"input": "hi"}, "object", "list"),
    "SageMaker ranks": ("/invocations", RANKING, "results.0.index", 1),
    "SageMaker scores": ("/invocations", {"queries": "cat", "documents": DOCUMENTS}, "data.0.object", "score"),
    "NIM's token ids": (
        "/v1/embeddings",
        {"model": "text-embedding-3-small", "input": [[15339, 1917]], "input_type": "query"},
        "data.0.index",
        0,
    ),
    "NIM's one text's ids": ("/embeddings", {"input": [15339, 1917], "input_type": "passage"}, "data.0.index", 0),
    "NIM ranks": (
        "/v1/ranking",
        {**NIM, "truncate": "END"},
        "rankings.0.index",
        1,
    ),
    "NIM without a version": ("/ranking", NIM, "rankings.0.index", 1),
    "LiteLLM's path for NIM": (
        "/v1/retrieval/sentence-transformers/all-MiniLM-L6-v2/reranking",
        {**NIM, "model": "sentence.transformers/all-MiniLM-L6-v2"},
        "rankings.0.index",
        1,
    ),
    "LiteLLM's path for NIM without an owner": ("/v1/retrieval/all-minilm/reranking", NIM, "rankings.0.index", 1),
    "LM Studio's own path": ("/api/v0/embeddings", {"model": "all-minilm", "input": "hi"}, "data.0.index", 0),
    "LM Studio's newer path": ("/api/v1/embeddings", {"model": "all-minilm", "input": "hi"}, "data.0.index", 0),
    "the hub's path": (f"/pipeline/feature-extraction/{BUILTIN_MODEL}", {"inputs": ["hi", "ho"]}, "1.383", None),
    "the hub's path, encoded": (
        "/pipeline/feature-extraction/sentence-transformers%2Fall-MiniLM-L6-v2",
        {"inputs": ["hi"], "options": {"wait_for_model": True, "use_cache": False}},
        "0.383",
        None,
    ),
    "the hub's path with one text": ("/pipeline/feature-extraction/all-minilm", {"inputs": "hi"}, "383", None),
    "the hub's newer path": (
        f"/hf-inference/models/{BUILTIN_MODEL}/pipeline/feature-extraction",
        {"inputs": "hi"},
        "383",
        None,
    ),
    "the hub's router": (f"/hf-inference/models/{BUILTIN_MODEL}", {"inputs": ["hi"]}, "0.383", None),
    "the hub's older path": (f"/models/{BUILTIN_MODEL}", {"inputs": ["hi"]}, "0.383", None),
    "the hub's older path, compared": (
        f"/models/{BUILTIN_MODEL}",
        {"inputs": {"source_sentence": "cat", "sentences": ["dog", "cat"]}},
        "1",
        None,
    ),
    "the hub's similarity": (
        f"/hf-inference/models/{BUILTIN_MODEL}/pipeline/sentence-similarity",
        {"inputs": {"source_sentence": "cat", "sentences": ["dog", "cat"]}},
        "1",
        None,
    ),
    "Voyage's chunks": (
        "/v1/contextualizedembeddings",
        {"model": "voyage-3.5", "inputs": [["the cat", "it sat"], ["where?"]]},
        "data.0.data.1.index",
        1,
    ),
    "vLLM without input_type": ("/v2/embed", {"model": "all-MiniLM-L6-v2", "texts": ["hi"]}, "texts.0", "hi"),
    "TEI's batch": ("/embed", {"inputs": ["hi"] * 2100}, "2099.0", None),
    "many inputs": ("/v1/embeddings", {"model": "all-minilm", "input": ["hi"] * 2100}, "data.2099.index", 2099),
    "a long text": ("/v1/embeddings", {"model": "all-minilm", "input": ["ok", "word " * 9000]}, "data.1.index", 1),
    "many tokens": (
        "/v1/embeddings",
        {"model": "all-MiniLM-L6-v2", "input": ["word " * 8000] * 40},
        "data.39.index",
        39,
    ),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "messages": (
        "/v1/embeddings",
        {"model": "all-minilm", "messages": MESSAGES},
        "messages: this model has no chat template",
    ),
    "messages as input": ("/v1/embeddings", {"model": "all-minilm", "input": MESSAGES}, "input[0] must be text"),
    "messages to pool": ("/pooling", {"messages": MESSAGES}, "messages: this model has no chat template"),
    "messages to classify": ("/classify", {"messages": MESSAGES}, "can't classify"),
    "messages to tokenize": ("/tokenize", {"messages": MESSAGES}, "messages: this model has no chat template"),
    "Cohere's top_n": ("/v2/rerank", {"model": "rerank-v3.5", **RANKING, "top_n": 0}, "top_n must be at least 1"),
    "Cohere's input_type": ("/v2/embed", {"model": "embed-v4.0", "texts": ["hi"]}, "valid input_type must be"),
    "Voyage's empty chunks": (
        "/v1/contextualizedembeddings",
        {"model": "voyage-3.5", "inputs": [["a"], []]},
        "Input cannot contain empty",
    ),
    "NIM's image": ("/ranking", {**NIM, "passages": [{"text": "a", "image": "data:x"}]}, "passages[0].image"),
    "NIM without passages": ("/ranking", {**NIM, "passages": []}, "passages"),
    "NIM's top_k": ("/ranking", {**NIM, "top_k": 0}, "'top_k': must be at least 1"),
    "an unknown model in NIM's path": ("/v1/retrieval/nvidia/nv-rerank_1/reranking", NIM, "nvidia/nv-rerank.1"),
    "OpenAI's dimensions": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "hi", "dimensions": 0}, "1"),
    "OpenAI's inputs": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["hi"] * 2049}, "2048"),
    "OpenAI's tokens": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "word " * 9000}, "8192"),
    "an object without text": ("/v1/rerank", {"query": "cat", "documents": ["cat", {"text": None}]}, "index 1"),
}


def at(reply: Any, path: str) -> Any:
    for part in path.split("."):
        reply = reply[int(part) if part.isdigit() else part]
    return reply


@pytest.mark.parametrize("name", ANSWERED)
async def test_other_servers_requests_are_answered(name: str, builtin: httpx.AsyncClient) -> None:
    path, body, place, value = ANSWERED[name]

    answer = await builtin.post(path, json=body)

    assert 200 == answer.status_code, answer.text[:300]
    found = at(answer.json(), place)
    assert found if value is None else value == found


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_done_is_refused_in_a_sentence(name: str, builtin: httpx.AsyncClient) -> None:
    path, body, words = REFUSED[name]

    answer = await builtin.post(path, json=body)

    assert 400 == answer.status_code
    assert words in answer.text


async def test_no_name_and_a_placeholder_never_choose_among_several_models(bert: Path) -> None:
    models = (ModelSettings(name=BUILTIN_MODEL), ModelSettings(name=str(bert), engine="torch"))

    async with running(Settings(models=models, engine="fake", device="cpu")) as app, calling(app) as client:
        nameless = await client.post("/v1/embeddings", json={"input": "hi"})
        named = await client.post("/v1/embeddings", json={"input": "hi", "model": "text-embeddings-inference"})

    assert (400, "you must provide a model parameter") == (nameless.status_code, nameless.json()["message"])
    assert 404 == named.status_code


async def test_a_model_that_cuts_texts_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        await client.post("/v1/embeddings", json={"input": "word " * 300, "truncate_prompt_tokens": 8})
        clients_own = [*caplog.records]
        for path, body in (("/v1/embeddings", {"input": "word " * 300}), ("/embed", {"inputs": "word " * 300})):
            await client.post(path, json=body)

    assert not [record for record in clients_own if "was cut" in record.message]
    assert 1 == len([record for record in caplog.records if "was cut at the model's limit of 256" in record.message])


async def test_a_chunk_s_vector_knows_its_document_and_a_single_text_s_is_the_usual_one(
    builtin: httpx.AsyncClient,
) -> None:
    async def vectors(*documents: list[str]) -> list[list[list[float]]]:
        body = {"model": "voyage-3.5", "inputs": documents}
        answer = await builtin.post("/voyage/v1/contextualizedembeddings", json=body)
        return [[chunk["embedding"] for chunk in document["data"]] for document in answer.json()["data"]]

    [[_, chunk], [alone]] = await vectors(["Berlin has 3.8 million people. ", "The city is old."], ["The city is old."])
    plain = await builtin.post("/v1/embeddings", json={"input": "The city is old."})

    assert plain.json()["data"][0]["embedding"] == pytest.approx(alone, abs=1e-6)
    assert 0.5 < sum(one * other for one, other in zip(chunk, alone, strict=True)) < 0.99


@pytest.mark.parametrize(
    ("setting", "body", "wanted"),
    [
        (False, {}, None),
        (False, {"return_documents": True}, None),
        (True, {}, {"text": "the cat sat"}),
        (True, {"return_documents": False}, {"text": "the cat sat"}),
        (True, {"raw_scores": False, "return_documents": True}, "the cat sat"),
        (True, {"raw_scores": False}, None),
    ],
)
async def test_a_setting_returns_documents_to_vllm_s_callers(
    setting: bool, body: dict[str, Any], wanted: object
) -> None:
    async with running(Settings(engine="fake", rerank_documents=setting)) as app, calling(app) as client:
        answers = [(await client.post(path, json=RANKING | body)).json() for path in ("/rerank", "/invocations")]

    documents = [{one["index"]: one.get("document") for one in answer["results"]}[1] for answer in answers]
    assert [wanted, wanted] == documents
