"""LlamaIndex's TextEmbeddingsInference. It ignores the status and fails on the missing vectors."""

import pytest
from checks import assert_embeds, assert_retrieves
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from matrix import FLAKY_URL, KEY, URL, WRONG_KEY, limited


def _embedding(url: str = URL, key: str = KEY) -> TextEmbeddingsInference:
    return TextEmbeddingsInference(model_name="any", base_url=url, auth_token=key)


def test_embeddings_equal_those_of_a_plain_request() -> None:
    assert_embeds(_embedding())


def test_embeddings_find_the_passage() -> None:
    assert_retrieves(_embedding())


def test_error_for_a_wrong_key_is_a_response_without_vectors() -> None:
    with pytest.raises(KeyError):
        _embedding(key=WRONG_KEY).get_query_embedding("a")


def test_no_retry_but_a_response_without_vectors_after_a_rate_limit() -> None:
    with limited(requests=1), pytest.raises(KeyError):
        _embedding(FLAKY_URL).get_query_embedding("a")
