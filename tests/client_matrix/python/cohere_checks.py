"""The cohere client, of either version: its classes for API versions 1 and 2, synchronous and asynchronous."""

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
ALSO_UNDER_V1 = pytest.mark.parametrize("suffix", ["", "/v1"])  # some callers give the address with it


def _embed(client: object, texts: list[str] = TEXTS, **options: object) -> object:
    return client.embed(**{"texts": texts, "model": EMBED, "input_type": "search_document", **options})


def _rerank(client: object, **options: object) -> object:
    return client.rerank(**{"model": RERANK, "query": QUERY, "documents": PASSAGES, **options})


def _scores(reply: object) -> list[tuple[int, float]]:
    return [(found.index, found.relevance_score) for found in reply.results]


@ALSO_UNDER_V1
def test_embeddings_of_version_1(suffix: str) -> None:
    reply = _embed(cohere.Client(KEY, base_url=URL + suffix))

    assert "embeddings_floats" == reply.response_type
    assert TEXTS == reply.texts
    assert_vectors(TEXTS, reply.embeddings)


def test_embeddings_of_version_1_are_put_together_from_pieces_of_96() -> None:
    texts = [f"sentence {number}" for number in range(100)]

    reply = _embed(cohere.Client(KEY, base_url=URL), texts)

    assert_vectors(texts, reply.embeddings)
    assert reply.meta.billed_units.input_tokens > len(texts)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_embeddings_of_version_1_by_type() -> None:
    reply = _embed(cohere.Client(KEY, base_url=URL), embedding_types=["float", "int8"])

    assert "embeddings_by_type" == reply.response_type
    assert_vectors(TEXTS, reply.embeddings.float_)
    assert_alike(reply.embeddings.int8, reply.embeddings.float_)
    assert reply.embeddings.binary is None


@ALSO_UNDER_V1
def test_embeddings_of_version_2(suffix: str) -> None:
    every = ["float", "int8", "uint8", "binary", "ubinary", "base64"]

    found = _embed(cohere.ClientV2(KEY, base_url=URL + suffix), embedding_types=every).embeddings

    assert_vectors(TEXTS, found.float_)
    assert_alike(found.int8, found.float_)
    assert_alike([[number - 127.5 for number in row] for row in found.uint8], found.float_)
    assert [[number - 128 for number in row] for row in found.ubinary] == found.binary
    assert [[bit for number in row for bit in _bits(number)] for row in found.ubinary] == [
        [number > 0 for number in row] for row in found.float_
    ]
    assert_vectors(TEXTS, [struct.unpack(f"<{len(row)}f", base64.b64decode(text)) for row, text in zip_of(found)])


def _bits(number: int) -> list[bool]:
    return [bool(number >> place & 1) for place in range(7, -1, -1)]


def zip_of(found: object) -> list[tuple[list[float], str]]:
    """Pair the rows of floats with those in base64."""
    return list(zip(found.float_, found.base64, strict=True))


def assert_alike(quantised: list[list[float]], floats: list[list[float]]) -> None:
    """Hold quantised rows against the floats they were made of."""
    for row, other in zip(quantised, floats, strict=True):
        dot = sum(a * b for a, b in zip(row, other, strict=True))
        assert dot / (sum(a * a for a in row) * sum(b * b for b in other)) ** 0.5 >= 0.999


def test_embeddings_of_version_2_from_inputs_shorter() -> None:
    inputs = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]

    reply = cohere.ClientV2(KEY, base_url=URL).embed(
        inputs=inputs, model="embed-v4.0", input_type="search_document", output_dimension=64, embedding_types=["float"]
    )

    assert_vectors(TEXTS, reply.embeddings.float_, dimensions=64)


def test_embeddings_of_the_asynchronous_clients() -> None:
    async def ask() -> tuple[object, object]:
        first, second = cohere.AsyncClient(KEY, base_url=URL), cohere.AsyncClientV2(KEY, base_url=URL)
        return await asyncio.gather(_embed(first), _embed(second, embedding_types=["float"]))

    one, two = asyncio.run(ask())

    assert_vectors(TEXTS, one.embeddings)
    assert_vectors(TEXTS, two.embeddings.float_)


@ALSO_UNDER_V1
def test_rerank_of_version_1_with_documents(suffix: str) -> None:
    documents = [*PASSAGES[:3], {"text": PASSAGES[3]}]

    reply = _rerank(cohere.Client(KEY, base_url=URL + suffix), documents=documents, return_documents=True)

    assert_scores(_scores(reply))
    assert [PASSAGES[found.index] for found in reply.results] == [found.document.text for found in reply.results]


@ALSO_UNDER_V1
def test_rerank_of_version_2(suffix: str) -> None:
    reply = _rerank(cohere.ClientV2(KEY, base_url=URL + suffix), top_n=2, max_tokens_per_doc=4096)

    assert_scores(_scores(reply), top=2)
    assert reply.id
    assert 1 == reply.meta.billed_units.search_units


def test_rerank_of_the_asynchronous_clients() -> None:
    async def ask() -> tuple[object, object]:
        first, second = cohere.AsyncClient(KEY, base_url=URL), cohere.AsyncClientV2(KEY, base_url=URL)
        return await asyncio.gather(_rerank(first), _rerank(second))

    one, two = asyncio.run(ask())

    assert_scores(_scores(one))
    assert_scores(_scores(two))


@pytest.mark.parametrize("offline", [False, True])
def test_other_tokens_are_the_text_again(*, offline: bool) -> None:
    """Offline, the client's default, asks for the address of a tokenizer, and finding none asks the server."""
    client = cohere.Client(KEY, base_url=URL)

    found = client.tokenize(text=QUERY, model=EMBED, offline=offline)
    back = client.detokenize(tokens=found.tokens, model=EMBED, offline=False)

    assert QUERY == "".join(found.token_strings)
    assert QUERY.lower().split() == back.text.replace(" ?", "?").split()


def test_other_models_are_listed_and_found() -> None:
    client = cohere.Client(KEY, base_url=URL)

    listed = client.models.list().models
    found = client.models.get(listed[0].name)

    assert {"embed", "rerank"} & {*found.endpoints}
    assert listed[0].name == found.name
    assert found.context_length > 0


def test_other_models_are_listed_by_what_they_do() -> None:
    listed = cohere.ClientV2(KEY, base_url=URL).models.list(endpoint="embed", page_size=5).models

    assert listed
    assert all("embed" in model.endpoints for model in listed)


def test_other_keys_are_checked() -> None:
    """Client and ClientV2 have locked this method of their base away; the base still has it."""
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


def test_retry_ends_in_the_clients_own_error() -> None:
    client = cohere.ClientV2(KEY, base_url=FLAKY_URL)

    with limited(requests=1), pytest.raises(ApiError) as caught:
        _rerank(client, request_options={"max_retries": 0})

    assert isinstance(caught.value, cohere.TooManyRequestsError)
    assert LIMITED in caught.value.body["message"]
