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
    async def ask() -> list[list[float]]:
        return await _embeddings().aembed_documents(TEXTS)

    assert_vectors(TEXTS, asyncio.run(ask()))


def test_rerank_of_strings() -> None:
    found = _rerank(top_n=4).rerank(PASSAGES, QUERY)

    assert_scores([(one["index"], one["relevance_score"]) for one in found])


def test_rerank_of_fields() -> None:
    """LangChain writes them as YAML before it sends them."""
    documents = [{"title": "of no use", "body": passage} for passage in PASSAGES]

    found = _rerank().rerank(documents, QUERY, rank_fields=["body"], max_tokens_per_doc=100)

    assert NEAREST == found[0]["index"]
    assert 3 == len(found)


def test_rerank_of_documents() -> None:
    documents = [Document(passage, metadata={"place": place}) for place, passage in enumerate(PASSAGES)]

    found = _rerank(top_n=2).compress_documents(documents, QUERY)

    assert_scores([(one.metadata["place"], one.metadata["relevance_score"]) for one in found], top=2)


def test_error_for_a_wrong_key() -> None:
    """Of embeddings, it would try again at any error at all; so it is told to try once."""
    with pytest.raises(cohere.UnauthorizedError, match="invalid api token"):
        _embeddings(cohere_api_key=WRONG_KEY, max_retries=1).embed_query("a")


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(cohere.NotFoundError, match=f"model '{UNKNOWN}' not found"):
        _rerank(model=UNKNOWN).rerank(PASSAGES, QUERY)


def test_retry_after_a_rate_limit() -> None:
    with limited():
        found = _embeddings(FLAKY_URL).embed_documents(PASSAGES)

    assert_vectors(PASSAGES, found)


def test_retry_of_rerank_is_the_clients() -> None:
    """CohereRerank has none; version 5 of cohere, which it needs, tries twice more by itself."""
    with limited():
        found = _rerank(FLAKY_URL, top_n=4).rerank(PASSAGES, QUERY)

    assert_scores([(one["index"], one["relevance_score"]) for one in found])
