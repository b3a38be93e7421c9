"""LlamaIndex's OllamaEmbedding. Its API key goes into the client's headers."""

import ollama
import pytest
from checks import assert_embeds, assert_retrieves
from llama_index.embeddings.ollama import OllamaEmbedding
from matrix import FLAKY_URL, KEY, LIMITED, UNKNOWN, URL, WRONG_KEY, limited


def _embedding(url: str = URL, key: str = KEY, model: str = "all-minilm") -> OllamaEmbedding:
    headers = {"Authorization": f"Bearer {key}"}
    return OllamaEmbedding(model_name=model, base_url=url, client_kwargs={"headers": headers})


def test_embeddings_equal_those_of_a_plain_request() -> None:
    assert_embeds(_embedding())


def test_embeddings_find_the_passage() -> None:
    assert_retrieves(_embedding())


@pytest.mark.parametrize(("options", "says"), [({"model": UNKNOWN}, UNKNOWN), ({"key": WRONG_KEY}, "401")], ids=str)
def test_error_is_the_clients_own(options: dict[str, str], says: str) -> None:
    with pytest.raises(ollama.ResponseError, match=says):
        _embedding(**options).get_query_embedding("a")


def test_no_retry_but_its_own_error_after_a_rate_limit() -> None:
    with limited(requests=1), pytest.raises(ollama.ResponseError, match=LIMITED):
        _embedding(FLAKY_URL).get_query_embedding("a")
