"""LangChain's OpenAIEmbeddings, which by default sends token ids of OpenAI's vocabulary."""

import asyncio
import math

import openai
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings
from matrix import (
    FLAKY_URL,
    KEY,
    LIMITED,
    NEAREST,
    PASSAGES,
    QUERY,
    TEXTS,
    UNKNOWN,
    URL,
    WRONG_KEY,
    assert_vectors,
    limited,
)


def _embeddings(url: str = URL, **options: object) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(**{"model": "text-embedding-3-small", "base_url": f"{url}/v1", "api_key": KEY, **options})


@pytest.mark.parametrize("model", ["text-embedding-3-small", "text-embedding-ada-002"])
def test_embeddings_of_token_ids(model: str) -> None:
    assert_vectors(TEXTS, _embeddings(model=model).embed_documents(TEXTS))


def test_embeddings_of_text() -> None:
    found = _embeddings(check_embedding_ctx_length=False).embed_documents(TEXTS)

    assert_vectors(TEXTS, found)


def test_embeddings_with_dimensions() -> None:
    assert_vectors(TEXTS, _embeddings(dimensions=64).embed_documents(TEXTS), dimensions=64)


def test_embeddings_of_a_query_and_asynchronously() -> None:
    async def run() -> list[list[float]]:
        embeddings = _embeddings()
        return [await embeddings.aembed_query(TEXTS[0]), *await embeddings.aembed_documents(TEXTS[1:])]

    assert_vectors([QUERY], [_embeddings().embed_query(QUERY)])
    assert_vectors(TEXTS, asyncio.run(run()))


def test_embeddings_of_a_text_of_many_chunks() -> None:
    """20,000 words are three chunks of up to 8,191 tokens; LangChain averages their vectors."""
    vector, _ = _embeddings().embed_documents(["word " * 20_000, "another"])

    assert 384 == len(vector)
    assert math.isclose(1, math.hypot(*vector), abs_tol=1e-5)


def test_embeddings_find_the_passage_in_a_store() -> None:
    store = InMemoryVectorStore(_embeddings())
    store.add_texts(PASSAGES)

    found = store.similarity_search(QUERY, k=1)

    assert [PASSAGES[NEAREST]] == [document.page_content for document in found]


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
        _embeddings(api_key=WRONG_KEY).embed_query("a")


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(openai.NotFoundError, match=f"`{UNKNOWN}` does not exist"):
        _embeddings(model=UNKNOWN).embed_documents(["a"])


def test_retry_after_a_rate_limit() -> None:
    with limited():
        found = _embeddings(FLAKY_URL).embed_documents(PASSAGES)

    assert_vectors(PASSAGES, found)


def test_retry_exhausted_raises_its_own_error() -> None:
    with limited(requests=1), pytest.raises(openai.RateLimitError, match=LIMITED):
        _embeddings(FLAKY_URL, max_retries=0).embed_documents(PASSAGES)
