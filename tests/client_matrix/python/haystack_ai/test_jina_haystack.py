"""Haystack's Jina components: text and document embedders, and the ranker. They only raise RuntimeError."""

import asyncio

import pytest
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.embedders.jina import JinaDocumentEmbedder, JinaTextEmbedder
from haystack_integrations.components.rankers.jina import JinaRanker
from matrix import (
    FLAKY_URL,
    KEY,
    LIMITED,
    PASSAGES,
    QUERY,
    TEXTS,
    UNKNOWN,
    URL,
    WRONG_KEY,
    assert_scores,
    assert_vectors,
    limited,
)

DOCUMENTS = [Document(content=text) for text in TEXTS]
RANKED = [Document(content=passage, meta={"index": index}) for index, passage in enumerate(PASSAGES)]


def _embedding(url: str = URL, key: str = KEY) -> dict[str, object]:
    return {"api_key": Secret.from_token(key), "base_url": f"{url}/v1/embeddings"}


def _ranking(url: str = URL, key: str = KEY) -> dict[str, object]:
    return {"api_key": Secret.from_token(key), "base_url": f"{url}/v1/rerank"}


def _scores(found: dict[str, list[Document]]) -> list[tuple[int, float]]:
    return [(document.meta["index"], document.score) for document in found["documents"]]


def test_embeddings_of_a_text() -> None:
    found = JinaTextEmbedder(**_embedding()).run(QUERY)

    assert_vectors([QUERY], [found["embedding"]])
    assert found["meta"]["model"]
    assert found["meta"]["usage"]["total_tokens"] > 0


def test_embeddings_with_task_and_dimensions() -> None:
    found = JinaTextEmbedder(**_embedding(), task="retrieval.query", dimensions=64).run(QUERY)

    assert_vectors([QUERY], [found["embedding"]], dimensions=64)


def test_embeddings_of_documents() -> None:
    found = JinaDocumentEmbedder(
        **_embedding(), task="retrieval.passage", late_chunking=False, batch_size=2, progress_bar=False
    ).run(DOCUMENTS)

    assert_vectors(TEXTS, [document.embedding for document in found["documents"]])


def test_embeddings_under_the_jina_prefix() -> None:
    found = JinaTextEmbedder(**_embedding(f"{URL}/jina")).run(QUERY)

    assert_vectors([QUERY], [found["embedding"]])
    assert found["meta"]["usage"]["prompt_tokens"] > 0


def test_embeddings_with_late_chunking() -> None:
    embedder = JinaDocumentEmbedder(**_embedding(), late_chunking=True, progress_bar=False)

    found = [document.embedding for document in embedder.run(DOCUMENTS)["documents"]]
    alone = JinaTextEmbedder(**_embedding(), late_chunking=True).run(TEXTS[0])["embedding"]

    assert len(TEXTS) == len(found)
    assert found[0] != alone


def test_embeddings_asynchronously() -> None:
    found = asyncio.run(JinaTextEmbedder(**_embedding()).run_async(QUERY))

    assert_vectors([QUERY], [found["embedding"]])


def test_rerank_returns_the_best_first() -> None:
    found = JinaRanker(**_ranking()).run(QUERY, RANKED)

    assert_scores(_scores(found))
    assert found["meta"]["model"]
    assert found["meta"]["usage"]["total_tokens"] > 0


def test_rerank_under_the_jina_prefix() -> None:
    found = JinaRanker(**_ranking(f"{URL}/jina"), top_k=2).run(QUERY, RANKED)

    assert_scores(_scores(found), top=2)
    assert found["meta"]["usage"]["total_tokens"] > 0


def test_rerank_returns_top_n() -> None:
    assert_scores(_scores(JinaRanker(**_ranking(), top_k=2).run(QUERY, RANKED)), top=2)


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(RuntimeError) as caught:
        JinaTextEmbedder(**_embedding(key=WRONG_KEY)).run(QUERY)

    assert "API key" in str(caught.value)
    assert WRONG_KEY not in str(caught.value)


def test_error_for_a_wrong_key_in_rerank() -> None:
    with pytest.raises(RuntimeError, match=r"(?i)api (key|token)"):
        JinaRanker(**_ranking(key=WRONG_KEY)).run(QUERY, RANKED)


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(RuntimeError, match=UNKNOWN):
        JinaTextEmbedder(**_embedding(), model=UNKNOWN, task="retrieval.query").run(QUERY)


def test_error_for_an_unknown_model_in_rerank() -> None:
    with pytest.raises(RuntimeError, match=UNKNOWN):
        JinaRanker(**_ranking(), model=UNKNOWN).run(QUERY, RANKED)


def test_no_retry_but_its_own_error_after_a_rate_limit() -> None:
    with limited(requests=1), pytest.raises(RuntimeError, match=LIMITED):
        JinaTextEmbedder(**_embedding(FLAKY_URL)).run(QUERY)
