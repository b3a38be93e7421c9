"""Hugging Face's InferenceClient, which calls text-embeddings-inference at any URL."""

import asyncio

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from matrix import FLAKY_URL, KEY, PASSAGES, QUERY, TEXTS, URL, WRONG_KEY, assert_vectors, cosine, limited, vectors


def _client(path: str, *, url: str = URL, key: str = KEY) -> InferenceClient:
    return InferenceClient(model=f"{url}{path}", token=key)


@pytest.mark.parametrize("path", ["/embed", "/", ""])
def test_embeddings_at_the_route_and_at_the_root(path: str) -> None:
    """TEI's documentation uses the server's root URL."""
    found = _client(path).feature_extraction(TEXTS)

    assert (len(TEXTS), 384) == found.shape
    assert_vectors(TEXTS, found.tolist())


def test_embeddings_of_one_text_with_every_option() -> None:
    found = _client("/embed").feature_extraction(
        TEXTS[0], normalize=True, truncate=True, truncation_direction="left", dimensions=64
    )

    assert_vectors(TEXTS[:1], found.tolist(), dimensions=64)


def test_embeddings_without_normalization() -> None:
    found = _client("/embed").feature_extraction(TEXTS, normalize=False)

    assert_vectors(TEXTS, found.tolist())


def test_embeddings_of_the_asynchronous_client() -> None:
    async def run() -> object:
        async with AsyncInferenceClient(model=f"{URL}/embed", token=KEY) as client:
            return await client.feature_extraction(TEXTS)

    assert_vectors(TEXTS, asyncio.run(run()).tolist())


def test_rerank_by_the_cosines_of_sentences() -> None:
    query, *others = vectors([QUERY, *PASSAGES])

    found = _client("/similarity").sentence_similarity(QUERY, other_sentences=PASSAGES)

    assert pytest.approx([cosine(query, other) for other in others], abs=2e-3) == found


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        _client("/embed", key=WRONG_KEY).feature_extraction("a")

    assert 401 == caught.value.response.status_code
    assert WRONG_KEY not in str(caught.value)


def test_error_has_the_servers_message() -> None:
    with pytest.raises(HfHubHTTPError, match=r"`inputs.sentences` cannot be empty"):
        _client("/similarity").sentence_similarity(QUERY, other_sentences=[])


def test_error_of_embeddings_has_the_servers_message() -> None:
    with pytest.raises(HfHubHTTPError, match="`inputs` cannot be empty"):
        _client("/embed").feature_extraction([])


def test_no_retry_but_its_own_error_after_a_rate_limit() -> None:
    with limited(requests=1), pytest.raises(HfHubHTTPError) as caught:
        _client("/embed", url=FLAKY_URL).feature_extraction("a")

    assert 429 == caught.value.response.status_code
