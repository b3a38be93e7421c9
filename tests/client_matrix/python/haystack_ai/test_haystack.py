"""Haystack's OpenAITextEmbedder and OpenAIDocumentEmbedder."""

import openai
import pytest
from haystack import Document, Pipeline
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret
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

DOCUMENTS = [Document(content=text) for text in TEXTS]


def _text(url: str = URL, key: str = KEY, **options: object) -> OpenAITextEmbedder:
    return OpenAITextEmbedder(api_key=Secret.from_token(key), api_base_url=f"{url}/v1", **options)


def _documents(url: str = URL, **options: object) -> OpenAIDocumentEmbedder:
    return OpenAIDocumentEmbedder(
        api_key=Secret.from_token(KEY), api_base_url=f"{url}/v1", progress_bar=False, raise_on_failure=True, **options
    )


def test_embeddings_of_a_text() -> None:
    found = _text().run(QUERY)

    assert_vectors([QUERY], [found["embedding"]])
    assert found["meta"]["model"]
    assert found["meta"]["usage"]["prompt_tokens"] > 0


def test_embeddings_of_documents_in_batches() -> None:
    found = _documents(batch_size=2, dimensions=64).run(DOCUMENTS)

    assert_vectors(TEXTS, [document.embedding for document in found["documents"]], dimensions=64)
    assert found["meta"]["usage"]["total_tokens"] > len(TEXTS)


def test_embeddings_find_the_passage_in_a_pipeline() -> None:
    store = InMemoryDocumentStore()
    store.write_documents(_documents().run(DOCUMENTS)["documents"])
    pipeline = Pipeline()
    pipeline.add_component("embedder", _text())
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")

    found = pipeline.run({"embedder": {"text": QUERY}})["retriever"]["documents"]

    assert [PASSAGES[NEAREST]] == [document.content for document in found]


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
        _text(key=WRONG_KEY).run("a")


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(openai.NotFoundError, match=f"`{UNKNOWN}` does not exist"):
        _documents(model=UNKNOWN).run(DOCUMENTS)


def test_retry_after_a_rate_limit() -> None:
    with limited():
        found = _documents(FLAKY_URL).run(DOCUMENTS)

    assert_vectors(TEXTS, [document.embedding for document in found["documents"]])


def test_retry_exhausted_raises_its_own_error() -> None:
    with limited(requests=1), pytest.raises(openai.RateLimitError, match=LIMITED):
        _text(FLAKY_URL, max_retries=0).run("a")
