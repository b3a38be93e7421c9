"""LlamaIndex's OpenAIEmbedding, which accepts OpenAI's model names only."""

import openai
import pytest
from checks import assert_embeds, assert_retrieves
from llama_index.embeddings.openai import OpenAIEmbedding
from matrix import FLAKY_URL, KEY, PASSAGES, TEXTS, URL, WRONG_KEY, assert_vectors, limited


def _embedding(url: str = URL, key: str = KEY, **options: object) -> OpenAIEmbedding:
    return OpenAIEmbedding(**{"model": "text-embedding-3-small", "api_base": f"{url}/v1", "api_key": key, **options})


def test_embeddings_equal_those_of_a_plain_request() -> None:
    assert_embeds(_embedding())


def test_embeddings_find_the_passage() -> None:
    assert_retrieves(_embedding())


@pytest.mark.parametrize("model", ["text-embedding-3-large", "text-embedding-ada-002"])
def test_embeddings_under_each_name(model: str) -> None:
    assert_vectors(TEXTS, _embedding(model=model).get_text_embedding_batch(TEXTS))


def test_embeddings_with_dimensions() -> None:
    assert_vectors(TEXTS, _embedding(dimensions=64).get_text_embedding_batch(TEXTS), dimensions=64)


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
        _embedding(key=WRONG_KEY).get_query_embedding("a")


def test_retry_after_a_rate_limit() -> None:
    with limited():
        found = _embedding(FLAKY_URL).get_text_embedding_batch(PASSAGES)

    assert_vectors(PASSAGES, found)
