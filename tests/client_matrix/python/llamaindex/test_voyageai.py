"""LlamaIndex's VoyageEmbedding. It has no base URL argument, so its Voyage clients are replaced.

It counts tokens before every request with a tokenizer from Hugging Face; to stay offline, words are counted instead.
"""

import pytest
import voyageai
from checks import assert_embeds, assert_retrieves
from llama_index.embeddings.voyageai import VoyageEmbedding
from matrix import FLAKY_URL, KEY, LIMITED, TEXTS, UNKNOWN, URL, WRONG_KEY, assert_vectors, limited
from voyageai import error


class _Offline(voyageai.Client):
    def tokenize(self, texts: list[str], model: str | None = None) -> list[list[str]]:
        assert model
        return [text.split() for text in texts]


def _embedding(url: str = URL, key: str = KEY, model: str = "voyage-3.5", **options: object) -> VoyageEmbedding:
    embedding = VoyageEmbedding(model_name=model, voyage_api_key=key, **options)
    embedding._client = _Offline(api_key=key, base_url=f"{url}/v1")
    embedding._aclient = voyageai.AsyncClient(api_key=key, base_url=f"{url}/v1")
    return embedding


def test_embeddings_equal_those_of_a_plain_request() -> None:
    assert_embeds(_embedding())


def test_embeddings_find_the_passage() -> None:
    assert_retrieves(_embedding())


def test_embeddings_with_dimensions() -> None:
    embedding = _embedding(output_dimension=64, output_dtype="float", truncation=True)

    assert_vectors(TEXTS, embedding.get_text_embedding_batch(TEXTS), dimensions=64)


def test_error_for_a_wrong_key_is_hidden_by_the_clients_bug() -> None:
    """Version 0.3.7 of voyageai, which this needs, can't read a response with OpenAI's ``error``: a module is missing.

    A wrong key is rejected before the body is read, so the response has the fields of all vendors with this path.
    voyageai 0.5 has no such bug.
    """
    with pytest.raises(AttributeError, match="error_object"):
        _embedding(key=WRONG_KEY).get_query_embedding("a")


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(error.VoyageError, match=UNKNOWN):
        _embedding(model=UNKNOWN).get_query_embedding("a")


def test_no_retry_but_its_own_error_after_a_rate_limit() -> None:
    with limited(requests=1), pytest.raises(error.RateLimitError, match=LIMITED):
        _embedding(FLAKY_URL).get_query_embedding("a")
