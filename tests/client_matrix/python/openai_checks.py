"""The openai client, in two major versions: synchronous, asynchronous, raw and streamed responses."""

import asyncio
import base64
import json
import struct

import openai
import pytest
from matrix import (
    FLAKY_URL,
    KEY,
    LIMITED,
    PASSAGES,
    TEXTS,
    UNKNOWN,
    URL,
    WRONG_KEY,
    assert_vectors,
    limited,
)

MODEL = "text-embedding-3-small"


def _client(url: str = URL, key: str = KEY, **options: object) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, **options)


def test_embeddings_equal_those_of_a_plain_request() -> None:
    with _client() as client:
        reply = client.embeddings.create(model=MODEL, input=TEXTS)

    assert list(range(len(TEXTS))) == [item.index for item in reply.data]
    assert_vectors(TEXTS, [item.embedding for item in reply.data])
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > len(TEXTS)


@pytest.mark.parametrize("options", [{"encoding_format": "float"}, {"dimensions": 64}, {"user": "a-user"}], ids=str)
def test_embeddings_follow_the_options(options: dict[str, object]) -> None:
    with _client() as client:
        reply = client.embeddings.create(model=MODEL, input=TEXTS, **options)

    assert_vectors(TEXTS, [item.embedding for item in reply.data], **options)


def test_embeddings_requested_in_base64_are_not_decoded() -> None:
    with _client() as client:
        reply = client.embeddings.create(model=MODEL, input=TEXTS[:1], encoding_format="base64")

    packed = base64.b64decode(reply.data[0].embedding)
    assert_vectors(TEXTS[:1], [struct.unpack(f"<{len(packed) // 4}f", packed)])


def test_embeddings_of_token_ids_equal_those_of_the_text() -> None:
    with _client() as client:
        reply = client.embeddings.create(model=MODEL, input=[[15339, 1917], [8134]])  # cl100k_base

    assert_vectors(["hello world", "foo"], [item.embedding for item in reply.data])


def test_embeddings_of_the_asynchronous_client() -> None:
    async def run() -> list[openai.types.CreateEmbeddingResponse]:
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY) as client:
            return await asyncio.gather(*(client.embeddings.create(model=MODEL, input=text) for text in TEXTS))

    replies = asyncio.run(run())

    assert_vectors(TEXTS, [reply.data[0].embedding for reply in replies])


def test_embeddings_with_a_raw_response() -> None:
    with _client() as client:
        raw = client.embeddings.with_raw_response.create(model=MODEL, input=PASSAGES)

    assert raw.headers["x-request-id"] == raw.request_id
    assert "application/json" in raw.headers["content-type"]
    assert_vectors(PASSAGES, [item.embedding for item in raw.parse().data])


def test_embeddings_with_a_streamed_response() -> None:
    with (
        _client() as client,
        client.embeddings.with_streaming_response.create(model=MODEL, input=PASSAGES) as streamed,
    ):
        body = json.loads(b"".join(streamed.iter_bytes()))

    packed = [base64.b64decode(item["embedding"]) for item in body["data"]]
    assert_vectors(PASSAGES, [struct.unpack(f"<{len(one) // 4}f", one) for one in packed])


def test_other_models_list_and_retrieve() -> None:
    with _client() as client:
        listed = [model.id for model in client.models.list()]
        found = client.models.retrieve(listed[0])

    assert listed[0] == found.id
    assert "model" == found.object


def test_error_for_a_wrong_key() -> None:
    with _client(key=WRONG_KEY) as client, pytest.raises(openai.AuthenticationError) as caught:
        client.embeddings.create(model=MODEL, input="a")

    assert 401 == caught.value.status_code
    assert "invalid_api_key" == caught.value.code
    assert "Incorrect API key provided" in caught.value.message
    assert WRONG_KEY not in caught.value.message
    assert caught.value.request_id


def test_error_for_an_unknown_model() -> None:
    with _client() as client, pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model=UNKNOWN, input="a")

    assert "model_not_found" == caught.value.code
    assert f"`{UNKNOWN}` does not exist" in caught.value.message


def test_error_of_the_asynchronous_client() -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY) as client:
            await client.embeddings.create(model=MODEL, input="")

    with pytest.raises(openai.BadRequestError, match="cannot be an empty string"):
        asyncio.run(run())


def test_retry_after_a_rate_limit() -> None:
    with _client(FLAKY_URL) as client, limited():
        reply = client.embeddings.create(model=MODEL, input=PASSAGES)

    assert_vectors(PASSAGES, [item.embedding for item in reply.data])


def test_retry_exhausted_raises_the_clients_own_error() -> None:
    with (
        _client(FLAKY_URL, max_retries=0) as client,
        limited(requests=1),
        pytest.raises(openai.RateLimitError, match=LIMITED),
    ):
        client.embeddings.create(model=MODEL, input="a")
