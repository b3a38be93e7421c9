"""LlamaIndex's OpenAILikeEmbedding, which accepts any model name."""

import openai
import pytest
from checks import assert_embeds, assert_retrieves
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from matrix import FLAKY_URL, KEY, PASSAGES, UNKNOWN, URL, WRONG_KEY, assert_vectors, call, limited


def _embedding(url: str = URL, **options: object) -> OpenAILikeEmbedding:
    name = call("/v1/models")["data"][0]["id"]
    return OpenAILikeEmbedding(**{"model_name": name, "api_base": f"{url}/v1", "api_key": KEY, **options})


def test_embeddings_under_the_models_own_name() -> None:
    assert_embeds(_embedding())


def test_embeddings_find_the_passage() -> None:
    assert_retrieves(_embedding())


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
        _embedding(api_key=WRONG_KEY).get_query_embedding("a")


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(openai.NotFoundError, match=f"`{UNKNOWN}` does not exist"):
        _embedding(model_name=UNKNOWN).get_query_embedding("a")


def test_retry_after_a_rate_limit() -> None:
    with limited():
        found = _embedding(FLAKY_URL).get_text_embedding_batch(PASSAGES)

    assert_vectors(PASSAGES, found)
