"""The cohere client, in two major versions: its classes for API v1 and v2, synchronous and asynchronous."""

import asyncio
import base64
import struct

import cohere
import pytest
from cohere.base_client import BaseCohere
from cohere.core.api_error import ApiError
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
    limited,
)

EMBED, RERANK = "embed-english-v3.0", "rerank-v3.5"
WITH_AND_WITHOUT_V1 = pytest.mark.parametrize("suffix", ["", "/v1"])  # some callers' base_url ends in /v1


def _embed(client: object, texts: list[str] = TEXTS, **options: object) -> object:
    return client.embed(**{"texts": texts, "model": EMBED, "input_type": "search_document", **options})


def _rerank(client: object, **options: object) -> object:
    return client.rerank(**{"model": RERANK, "query": QUERY, "documents": PASSAGES, **options})


def _scores(reply: object) -> list[tuple[int, float]]:
    return [(found.index, found.relevance_score) for found in reply.results]


@WITH_AND_WITHOUT_V1
def test_embeddings_of_api_v1(suffix: str) -> None:
    reply = _embed(cohere.Client(KEY, base_url=URL + suffix))

    assert "embeddings_floats" == reply.response_type
    assert TEXTS == reply.texts
    assert_vectors(TEXTS, reply.embeddings)


def test_embeddings_of_api_v1_are_requested_in_batches_of_96() -> None:
    texts = [f"sentence {number}" for number in range(100)]

    reply = _embed(cohere.Client(KEY, base_url=URL), texts)

    assert_vectors(texts, reply.embeddings)
    assert reply.meta.billed_units.input_tokens > len(texts)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_embeddings_of_api_v1_by_type() -> None:
    reply = _embed(cohere.Client(KEY, base_url=URL), embedding_types=["float", "int8"])

    assert "embeddings_by_type" == reply.response_type
    assert_vectors(TEXTS, reply.embeddings.float_)
    _assert_quantized(reply.embeddings.int8, reply.embeddings.float_)
    assert reply.embeddings.binary is None


@WITH_AND_WITHOUT_V1
def test_embeddings_of_api_v2(suffix: str) -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]

    found = _embed(cohere.ClientV2(KEY, base_url=URL + suffix), embedding_types=types).embeddings

    assert_vectors(TEXTS, found.float_)
    _assert_quantized(found.int8, found.float_)
    _assert_quantized([[number - 127.5 for number in row] for row in found.uint8], found.float_)
    assert [[number - 128 for number in row] for row in found.ubinary] == found.binary
    assert [[bit for number in row for bit in _bits(number)] for row in found.ubinary] == [
        [number > 0 for number in row] for row in found.float_
    ]
    assert_vectors(
        TEXTS, [struct.unpack(f"<{len(row)}f", base64.b64decode(text)) for row, text in _float_and_base64(found)]
    )


def _bits(number: int) -> list[bool]:
    return [bool(number >> shift & 1) for shift in range(7, -1, -1)]


def _float_and_base64(found: object) -> list[tuple[list[float], str]]:
    return list(zip(found.float_, found.base64, strict=True))


def _assert_quantized(quantized: list[list[float]], floats: list[list[float]]) -> None:
    for row, other in zip(quantized, floats, strict=True):
        dot = sum(a * b for a, b in zip(row, other, strict=True))
        assert dot / (sum(a * a for a in row) * sum(b * b for b in other)) ** 0.5 >= 0.999


def test_embeddings_of_api_v2_from_inputs_with_dimensions() -> None:
    inputs = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]

    reply = cohere.ClientV2(KEY, base_url=URL).embed(
        inputs=inputs, model="embed-v4.0", input_type="search_document", output_dimension=64, embedding_types=["float"]
    )

    assert_vectors(TEXTS, reply.embeddings.float_, dimensions=64)


def test_embeddings_of_the_asynchronous_clients() -> None:
    async def run() -> tuple[object, object]:
        first, second = cohere.AsyncClient(KEY, base_url=URL), cohere.AsyncClientV2(KEY, base_url=URL)
        return await asyncio.gather(_embed(first), _embed(second, embedding_types=["float"]))

    v1, v2 = asyncio.run(run())

    assert_vectors(TEXTS, v1.embeddings)
    assert_vectors(TEXTS, v2.embeddings.float_)


@WITH_AND_WITHOUT_V1
def test_rerank_of_api_v1_returns_documents(suffix: str) -> None:
    documents = [*PASSAGES[:3], {"text": PASSAGES[3]}]

    reply = _rerank(cohere.Client(KEY, base_url=URL + suffix), documents=documents, return_documents=True)

    assert_scores(_scores(reply))
    assert [PASSAGES[found.index] for found in reply.results] == [found.document.text for found in reply.results]


@WITH_AND_WITHOUT_V1
def test_rerank_of_api_v2(suffix: str) -> None:
    reply = _rerank(cohere.ClientV2(KEY, base_url=URL + suffix), top_n=2, max_tokens_per_doc=4096)

    assert_scores(_scores(reply), top=2)
    assert reply.id
    assert 1 == reply.meta.billed_units.search_units


def test_rerank_of_the_asynchronous_clients() -> None:
    async def run() -> tuple[object, object]:
        first, second = cohere.AsyncClient(KEY, base_url=URL), cohere.AsyncClientV2(KEY, base_url=URL)
        return await asyncio.gather(_rerank(first), _rerank(second))

    v1, v2 = asyncio.run(run())

    assert_scores(_scores(v1))
    assert_scores(_scores(v2))


@pytest.mark.parametrize("offline", [False, True])
def test_other_tokenize_and_detokenize_round_trip(*, offline: bool) -> None:
    """Offline, the default, the client requests the URL of a tokenizer; without one it calls the server."""
    client = cohere.Client(KEY, base_url=URL)

    found = client.tokenize(text=QUERY, model=EMBED, offline=offline)
    back = client.detokenize(tokens=found.tokens, model=EMBED, offline=False)

    assert QUERY == "".join(found.token_strings)
    assert QUERY.lower().split() == back.text.replace(" ?", "?").split()


def test_other_models_list_and_get() -> None:
    client = cohere.Client(KEY, base_url=URL)

    listed = client.models.list().models
    found = client.models.get(listed[0].name)

    assert {"embed", "rerank"} & {*found.endpoints}
    assert listed[0].name == found.name
    assert found.context_length > 0


def test_other_models_are_listed_by_endpoint() -> None:
    listed = cohere.ClientV2(KEY, base_url=URL).models.list(endpoint="embed", page_size=5).models

    assert listed
    assert all("embed" in model.endpoints for model in listed)


def test_other_check_api_key() -> None:
    """Client and ClientV2 disable this method of their base class."""
    assert BaseCohere(token=KEY, base_url=URL).check_api_key().valid


@pytest.mark.parametrize("kind", [cohere.Client, cohere.ClientV2])
def test_error_for_a_wrong_key(kind: type[cohere.Client]) -> None:
    with pytest.raises(cohere.UnauthorizedError) as caught:
        _rerank(kind(WRONG_KEY, base_url=URL))

    assert 401 == caught.value.status_code
    assert "invalid api token" == caught.value.body["message"]


@pytest.mark.parametrize("call", [_rerank, _embed])
def test_error_for_an_unknown_model(call: object) -> None:
    with pytest.raises(cohere.NotFoundError) as caught:
        call(cohere.ClientV2(KEY, base_url=URL), model=UNKNOWN)

    assert f"model '{UNKNOWN}' not found" in caught.value.body["message"]
    assert caught.value.body["id"]


def test_error_of_the_asynchronous_client() -> None:
    with pytest.raises(cohere.BadRequestError) as caught:
        asyncio.run(_rerank(cohere.AsyncClientV2(KEY, base_url=URL), documents=[]))

    assert "list of documents must not be empty" in caught.value.body["message"]


@pytest.mark.parametrize("kind", [cohere.Client, cohere.ClientV2])
def test_retry_after_a_rate_limit(kind: type[cohere.Client]) -> None:
    client = kind(KEY, base_url=FLAKY_URL)

    with limited():
        reply = _rerank(client)

    assert_scores(_scores(reply))


def test_retry_exhausted_raises_the_clients_own_error() -> None:
    client = cohere.ClientV2(KEY, base_url=FLAKY_URL)

    with limited(requests=1), pytest.raises(ApiError) as caught:
        _rerank(client, request_options={"max_retries": 0})

    assert isinstance(caught.value, cohere.TooManyRequestsError)
    assert LIMITED in caught.value.body["message"]
