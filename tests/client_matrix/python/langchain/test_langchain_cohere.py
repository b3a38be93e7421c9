"""LangChain's CohereEmbeddings and CohereRerank."""

import asyncio

import cohere
import pytest
from langchain_cohere import CohereEmbeddings, CohereRerank
from langchain_core.documents import Document
from matrix import (
    FLAKY_URL,
    KEY,
    NEAREST,
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


def _embeddings(url: str = URL, **options: object) -> CohereEmbeddings:
    return CohereEmbeddings(**{"model": "embed-english-v3.0", "base_url": url, "cohere_api_key": KEY, **options})


def _rerank(url: str = URL, **options: object) -> CohereRerank:
    return CohereRerank(**{"model": "rerank-v3.5", "base_url": url, "cohere_api_key": KEY, **options})


def test_embeddings_of_documents_and_of_a_query() -> None:
    embeddings = _embeddings()

    assert_vectors(TEXTS, embeddings.embed_documents(TEXTS))
    assert_vectors([QUERY], [embeddings.embed_query(QUERY)])


def test_embeddings_asynchronously() -> None:
    async def run() -> list[list[float]]:
        return await _embeddings().aembed_documents(TEXTS)

    assert_vectors(TEXTS, asyncio.run(run()))


def test_rerank_of_strings() -> None:
    found = _rerank(top_n=4).rerank(PASSAGES, QUERY)

    assert_scores([(one["index"], one["relevance_score"]) for one in found])


def test_rerank_of_fields() -> None:
    """LangChain encodes them as YAML."""
    documents = [{"title": "of no use", "body": passage} for passage in PASSAGES]

    found = _rerank().rerank(documents, QUERY, rank_fields=["body"], max_tokens_per_doc=100)

    assert NEAREST == found[0]["index"]
    assert 3 == len(found)


def test_rerank_of_documents() -> None:
    documents = [Document(passage, metadata={"index": index}) for index, passage in enumerate(PASSAGES)]

    found = _rerank(top_n=2).compress_documents(documents, QUERY)

    assert_scores([(one.metadata["index"], one.metadata["relevance_score"]) for one in found], top=2)


def test_error_for_a_wrong_key() -> None:
    """CohereEmbeddings retries after any error, so retries are off here."""
    with pytest.raises(cohere.UnauthorizedError, match="invalid api token"):
        _embeddings(cohere_api_key=WRONG_KEY, max_retries=1).embed_query("a")


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(cohere.NotFoundError, match=f"model '{UNKNOWN}' not found"):
        _rerank(model=UNKNOWN).rerank(PASSAGES, QUERY)


def test_retry_after_a_rate_limit() -> None:
    with limited():
        found = _embeddings(FLAKY_URL).embed_documents(PASSAGES)

    assert_vectors(PASSAGES, found)


def test_retry_of_rerank_is_done_by_the_cohere_client() -> None:
    """CohereRerank doesn't retry; cohere 5, which it needs, retries twice."""
    with limited():
        found = _rerank(FLAKY_URL, top_n=4).rerank(PASSAGES, QUERY)

    assert_scores([(one["index"], one["relevance_score"]) for one in found])
