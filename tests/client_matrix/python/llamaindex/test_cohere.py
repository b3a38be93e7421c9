"""LlamaIndex's CohereEmbedding, which accepts Cohere's model names only."""

import cohere
import pytest
from checks import assert_embeds, assert_retrieves
from llama_index.embeddings.cohere import CohereEmbedding
from matrix import FLAKY_URL, KEY, PASSAGES, TEXTS, URL, WRONG_KEY, assert_vectors, cosine, limited, vectors


def _embedding(url: str = URL, key: str = KEY, **options: object) -> CohereEmbedding:
    return CohereEmbedding(api_key=key, base_url=url, **options)


def test_embeddings_equal_those_of_a_plain_request() -> None:
    assert_embeds(_embedding())


def test_embeddings_find_the_passage() -> None:
    assert_retrieves(_embedding(model_name="embed-v4.0"))


def test_embeddings_in_int8() -> None:
    found = _embedding(embedding_type="int8", input_type="clustering").get_text_embedding_batch(TEXTS)

    assert all(cosine(exact, row) >= 0.999 for exact, row in zip(vectors(TEXTS), found, strict=True))


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(cohere.UnauthorizedError, match="invalid api token"):
        _embedding(key=WRONG_KEY).get_query_embedding("a")


def test_retry_after_a_rate_limit() -> None:
    with limited():
        found = _embedding(FLAKY_URL).get_text_embedding_batch(PASSAGES)

    assert_vectors(PASSAGES, found)
