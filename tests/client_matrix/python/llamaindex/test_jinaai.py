"""LlamaIndex's JinaEmbedding. It has no base URL argument, so its API object's URL is set. It raises RuntimeError."""

import pytest
from checks import assert_embeds, assert_retrieves
from llama_index.embeddings.jinaai import JinaEmbedding
from matrix import FLAKY_URL, KEY, LIMITED, TEXTS, UNKNOWN, URL, WRONG_KEY, assert_vectors, limited


def _embedding(url: str = URL, key: str = KEY, **options: object) -> JinaEmbedding:
    embedding = JinaEmbedding(api_key=key, **options)
    embedding._api.api_url = f"{url}/v1/embeddings"
    return embedding


def test_embeddings_equal_those_of_a_plain_request() -> None:
    assert_embeds(_embedding())


def test_embeddings_find_the_passage() -> None:
    assert_retrieves(_embedding(task="text-matching"))


def test_embeddings_with_dimensions() -> None:
    embedding = _embedding(task="retrieval.passage", dimensions=64, late_chunking=False)

    assert_vectors(TEXTS, embedding.get_text_embedding_batch(TEXTS), dimensions=64)


@pytest.mark.parametrize("encoding", ["binary", "ubinary"])
def test_embeddings_in_binary(encoding: str) -> None:
    """The client requests them by ``encoding_type`` and unpacks the bits."""
    exact = _embedding().get_text_embedding_batch(TEXTS)

    found = _embedding(encoding_documents=encoding).get_text_embedding_batch(TEXTS)

    assert [[number > 0 for number in row] for row in exact] == [[bool(bit) for bit in row] for row in found]


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(RuntimeError, match="API key") as caught:
        _embedding(key=WRONG_KEY).get_query_embedding("a")

    assert WRONG_KEY not in str(caught.value)


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(RuntimeError, match=UNKNOWN):
        _embedding(model=UNKNOWN).get_query_embedding("a")


def test_no_retry_but_its_own_error_after_a_rate_limit() -> None:
    with limited(requests=1), pytest.raises(RuntimeError, match=LIMITED):
        _embedding(FLAKY_URL).get_query_embedding("a")
