"""The voyageai client, synchronous and asynchronous."""

import asyncio

import pytest
import voyageai
from matrix import (
    FLAKY_URL,
    KEY,
    LIMITED,
    PASSAGES,
    QUERY,
    TEXTS,
    UNKNOWN,
    URL,
    WRONG_KEY,
    assert_scores,
    assert_vectors,
    cosine,
    limited,
)
from voyageai import error

MODEL, RERANK = "voyage-3.5", "rerank-2.5"


def _client(url: str = URL, key: str = KEY, **options: object) -> voyageai.Client:
    return voyageai.Client(api_key=key, base_url=f"{url}/v1", **options)


@pytest.mark.parametrize("input_type", [None, "document", "query"])
def test_embeddings_equal_those_of_a_plain_request(input_type: str | None) -> None:
    found = _client().embed(TEXTS, model=MODEL, input_type=input_type)

    assert_vectors(TEXTS, found.embeddings)
    assert found.total_tokens > len(TEXTS)


def test_embeddings_with_output_dimension() -> None:
    found = _client().embed(TEXTS, model=MODEL, output_dimension=64)

    assert_vectors(TEXTS, found.embeddings, dimensions=64)


@pytest.mark.parametrize("kind", ["int8", "uint8", "binary", "ubinary"])
def test_embeddings_quantized_by_output_dtype(kind: str) -> None:
    client = _client()

    floats = client.embed(PASSAGES, model=MODEL).embeddings
    found = client.embed(PASSAGES, model=MODEL, output_dtype=kind).embeddings

    for row, exact in zip(found, floats, strict=True):
        assert all(isinstance(number, int) for number in row)
        if kind in {"int8", "uint8"}:
            assert cosine([number - 127.5 * (kind == "uint8") for number in row], exact) >= 0.999
        else:
            signs = [bool(number + 128 * (kind == "binary") >> 7 - shift & 1) for number in row for shift in range(8)]
            assert [number > 0 for number in exact] == signs


def test_embeddings_of_the_asynchronous_client() -> None:
    async def run() -> object:
        return await voyageai.AsyncClient(api_key=KEY, base_url=f"{URL}/v1").embed(TEXTS, model=MODEL)

    assert_vectors(TEXTS, asyncio.run(run()).embeddings)


def test_embeddings_and_rerank_under_the_voyage_prefix() -> None:
    client = voyageai.Client(api_key=KEY, base_url=f"{URL}/voyage/v1")

    found = client.embed(TEXTS, model=MODEL, input_type="document")
    ranked = client.rerank(QUERY, PASSAGES, model=RERANK)

    assert_vectors(TEXTS, found.embeddings)
    assert found.total_tokens > len(TEXTS)
    assert_scores([(one.index, one.relevance_score) for one in ranked.results])


def test_rerank_returns_the_best_first() -> None:
    found = _client().rerank(QUERY, PASSAGES, model=RERANK)

    assert_scores([(one.index, one.relevance_score) for one in found.results])
    assert [PASSAGES[one.index] for one in found.results] == [one.document for one in found.results]
    assert found.total_tokens > 0


def test_rerank_returns_top_n() -> None:
    found = _client().rerank(QUERY, PASSAGES, model=RERANK, top_k=2, truncation=False)

    assert_scores([(one.index, one.relevance_score) for one in found.results], top=2)


def test_rerank_of_the_asynchronous_client() -> None:
    async def run() -> object:
        return await voyageai.AsyncClient(api_key=KEY, base_url=f"{URL}/v1").rerank(QUERY, PASSAGES, model=RERANK)

    assert_scores([(one.index, one.relevance_score) for one in asyncio.run(run()).results])


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(error.AuthenticationError) as caught:
        _client(key=WRONG_KEY).embed(["a"], model=MODEL)

    assert 401 == caught.value.http_status
    assert "API key" in str(caught.value)
    assert WRONG_KEY not in str(caught.value)


@pytest.mark.parametrize("method", ["embed", "rerank"])
def test_error_for_an_unknown_model(method: str) -> None:
    arguments = {"embed": {"texts": ["a"]}, "rerank": {"query": QUERY, "documents": PASSAGES}}[method]

    with pytest.raises(error.VoyageError, match=UNKNOWN) as caught:
        getattr(_client(), method)(**arguments, model=UNKNOWN)

    assert not str(caught.value).startswith("Invalid response object")


def test_retry_after_a_rate_limit() -> None:
    with limited():
        found = _client(FLAKY_URL, max_retries=2).embed(PASSAGES, model=MODEL)

    assert_vectors(PASSAGES, found.embeddings)


def test_retry_is_off_by_default() -> None:
    with limited(requests=1), pytest.raises(error.RateLimitError, match=LIMITED):
        _client(FLAKY_URL).rerank(QUERY, PASSAGES, model=RERANK)
