"""Chroma, in memory, with its OpenAIEmbeddingFunction."""

from pathlib import Path

import chromadb
import openai
import pytest
from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction
from matrix import FLAKY_URL, KEY, LIMITED, NEAREST, PASSAGES, QUERY, URL, WRONG_KEY, assert_vectors, limited, vectors

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _function(url: str = URL, key: str = KEY, **options: object) -> OpenAIEmbeddingFunction:
    return OpenAIEmbeddingFunction(api_key=key, api_base=f"{url}/v1", model_name="text-embedding-3-small", **options)


def _collection(folder: Path, function: OpenAIEmbeddingFunction) -> chromadb.Collection:
    client = chromadb.PersistentClient(str(folder))
    return client.create_collection("passages", embedding_function=function, metadata={"hnsw:space": "cosine"})


def test_embeddings_equal_those_of_a_plain_request() -> None:
    assert_vectors(PASSAGES, [vector.tolist() for vector in _function()(PASSAGES)])
    assert_vectors(PASSAGES, [vector.tolist() for vector in _function(dimensions=64)(PASSAGES)], dimensions=64)


def test_embeddings_find_the_passage(tmp_path: Path) -> None:
    collection = _collection(tmp_path, _function())
    collection.add(ids=[str(index) for index in range(len(PASSAGES))], documents=PASSAGES)

    found = collection.query(query_texts=[QUERY], n_results=len(PASSAGES))

    query, nearest = vectors([QUERY, PASSAGES[NEAREST]])
    assert PASSAGES[NEAREST] == found["documents"][0][0]
    assert sorted(PASSAGES) == sorted(found["documents"][0])
    assert (
        pytest.approx(1 - sum(a * b for a, b in zip(query, nearest, strict=True)), abs=2e-3) == found["distances"][0][0]
    )


def test_error_for_a_wrong_key(tmp_path: Path) -> None:
    collection = _collection(tmp_path, _function(key=WRONG_KEY))

    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
        collection.add(ids=["0"], documents=["a"])


def test_retry_after_a_rate_limit() -> None:
    with limited():
        found = _function(FLAKY_URL)(PASSAGES)

    assert_vectors(PASSAGES, [vector.tolist() for vector in found])


def test_retry_exhausted_raises_the_clients_own_error() -> None:
    with limited(3, requests=3), pytest.raises(openai.RateLimitError, match=LIMITED):
        _function(FLAKY_URL)(["a"])
