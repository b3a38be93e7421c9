"""The official OpenAI client against a real server process with the built-in model."""

from __future__ import annotations

import asyncio
import random
import re
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import openai
import pytest
from texts import varied_texts

from nearfar.models.hub.builtin import BUILTIN_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    from sentence_transformers import SentenceTransformer
    from server_process import ServerProcess

pytestmark = pytest.mark.anyio

MODEL = "text-embedding-3-small"
TEXTS = varied_texts()


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with _client(server) as client:
        yield client


def _client(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def expected(reference: SentenceTransformer) -> dict[str, npt.NDArray[np.float32]]:
    """Return each text's vector."""
    vectors = reference.encode(TEXTS, batch_size=16, show_progress_bar=False)
    return dict(zip(TEXTS, vectors, strict=True))


def _stack(expected: dict[str, npt.NDArray[np.float32]], texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return np.stack([expected[text] for text in texts])


def _cosines(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: npt.NDArray[np.float32] = (left * right).sum(1) / norms
    return cosines


def _matrix(reply: openai.types.CreateEmbeddingResponse) -> npt.NDArray[np.float32]:
    return np.array([item.embedding for item in reply.data], dtype=np.float32)


def test_500_varied_texts_equal_sentence_transformers_in_order_on_each_engine(
    server_of_each_engine: ServerProcess,
    expected: dict[str, npt.NDArray[np.float32]],
    reference: SentenceTransformer,
) -> None:
    texts = server_of_each_engine.share(TEXTS)
    tokens = [int(features["attention_mask"].sum()) for features in (reference.preprocess([text]) for text in texts)]

    with _client(server_of_each_engine) as client:
        reply = client.embeddings.create(model=MODEL, input=texts)

    vectors = _matrix(reply)
    assert list(range(len(texts))) == [item.index for item in reply.data]
    assert (len(texts), 384) == vectors.shape
    assert _cosines(_stack(expected, texts), vectors).min() >= 0.99999
    np.testing.assert_allclose(1.0, np.linalg.norm(vectors, axis=1), atol=1e-5)
    assert sum(tokens) == reply.usage.prompt_tokens == reply.usage.total_tokens


@pytest.mark.parametrize("options", [{"encoding_format": "float"}, {"dimensions": 128}], ids=str)
def test_every_format_and_number_of_dimensions_has_the_same_vectors(
    client: openai.OpenAI, expected: dict[str, npt.NDArray[np.float32]], options: dict[str, Any]
) -> None:
    dimensions = options.get("dimensions", 384)

    vectors = _matrix(client.embeddings.create(model=MODEL, input=TEXTS[:100], **options))

    assert (100, dimensions) == vectors.shape
    assert _cosines(_stack(expected, TEXTS[:100])[:, :dimensions], vectors).min() >= 0.99999
    np.testing.assert_allclose(1.0, np.linalg.norm(vectors, axis=1), atol=1e-5)


def test_base64_and_float_have_the_same_values(client: openai.OpenAI) -> None:
    encoded = client.embeddings.create(model=MODEL, input=TEXTS[:40])
    plain = client.embeddings.create(model=MODEL, input=TEXTS[:40], encoding_format="float")

    np.testing.assert_array_equal(_matrix(encoded), _matrix(plain))


@pytest.mark.parametrize("name", [BUILTIN_NAMES[0], "text-embedding-3-large", "text-embedding-ada-002"])
def test_the_models_name_and_openai_names_select_the_same_model(client: openai.OpenAI, name: str) -> None:
    reply = client.embeddings.create(model=name, input="a sentence", user="a-user")

    assert BUILTIN_NAMES[0] == reply.model


def test_models_are_listed_and_retrieved_by_a_name_with_a_slash(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    found = client.models.retrieve(BUILTIN_NAMES[0])

    assert [BUILTIN_NAMES[0]] == [model.id for model in listed]
    assert BUILTIN_NAMES[0] == found.id
    assert "sentence-transformers" == found.owned_by


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"input": ""}, openai.BadRequestError, "empty string"),
        ({"input": []}, openai.BadRequestError, "empty array"),
        ({"input": ["a"] * 2049}, openai.BadRequestError, "2048 or less"),
        ({"input": "word " * 8193}, openai.BadRequestError, "maximum input length is 8192"),
        ({"input": ["word " * 8000] * 38}, openai.BadRequestError, "max 300000 tokens"),
        ({"input": "a", "dimensions": 0}, openai.BadRequestError, "'dimensions' = 0"),
        ({"input": "a", "dimensions": 385}, openai.BadRequestError, "less than or equal to 384"),
        ({"input": "a", "encoding_format": "md5"}, openai.BadRequestError, "Supported values"),
        ({"input": [[100277]]}, openai.BadRequestError, "not a token id"),
        ({"input": "a", "model": "no-such-model"}, openai.NotFoundError, "`no-such-model` does not exist"),
        ({"input": "a", "model": "rerank-v3.5"}, openai.PermissionDeniedError, "not allowed to generate embeddings"),
    ],
)
def test_an_invalid_request_raises_the_clients_own_error(
    client: openai.OpenAI, fields: dict[str, Any], kind: type[openai.APIStatusError], message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)) as caught:
        client.embeddings.create(**{"model": MODEL, **fields})

    assert caught.value.request_id
    assert caught.value.type in {"invalid_request_error", "max_tokens_per_request"}


def test_a_text_over_the_models_limit_is_truncated_and_reported(client: openai.OpenAI) -> None:
    reply = client.embeddings.with_raw_response.create(model=MODEL, input=["word " * 1000, "short"])

    assert "746" == reply.headers["x-nearfar-truncated-tokens"]  # 1,000 words, 254 tokens kept
    assert 256 + 3 == reply.parse().usage.prompt_tokens


async def test_64_concurrent_clients_get_their_own_vectors_and_share_batches_on_each_engine(
    server_of_each_engine: ServerProcess,
    expected: dict[str, npt.NDArray[np.float32]],
    reference: SentenceTransformer,
) -> None:
    """Requests have 1 to 50 rows. Every vector is compared, and some forward has rows of several requests."""
    server = server_of_each_engine
    rng = random.Random(1)  # noqa: S311 — sizes, not secrets
    short = [text for text in server.share(TEXTS) if len(text) < 100]
    max_rows = 5 if server.is_slow else 50
    requests = [[rng.choice(short) for _ in range(rng.randint(1, max_rows))] for _ in range(64)]
    ids = {text: tuple(reference.tokenizer(text)["input_ids"]) for text in short}
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as plain:
        before = await _counts(plain)
        connected = asyncio.Barrier(len(requests))
        answers = await asyncio.gather(*(_embed(server, texts, connected) for texts in requests))
        after = await _counts(plain)

    for texts, vectors in zip(requests, answers, strict=True):
        assert _cosines(_stack(expected, texts), vectors).min() >= 0.99999
    rows, alone = (after[name] - before[name] for name in ("rows", "alone"))
    distinct = [{ids[text] for text in texts} for texts in requests]
    assert len(set().union(*distinct)) <= rows <= sum(map(len, distinct))  # equal texts run once
    assert after["forwards"] - before["forwards"] > alone


async def _embed(server: ServerProcess, texts: Sequence[str], connected: asyncio.Barrier) -> npt.NDArray[np.float32]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        await client.models.list()
        await connected.wait()  # so that all requests are sent at once, however slowly the clients start
        return _matrix(await client.embeddings.create(model=MODEL, input=list(texts)))


async def _counts(plain: httpx.AsyncClient) -> dict[str, float]:
    """Return the number of rows, of forwards, and of forwards with rows of one request alone, so far."""
    lines = (await plain.get("/metrics")).text.splitlines()
    series = {
        "rows": "nearfar_batch_rows_sum{",
        "forwards": "nearfar_batch_requests_count{",
        "alone": 'nearfar_batch_requests_bucket{le="1.0"',
    }
    return {
        name: next(float(line.split()[-1]) for line in lines if line.startswith(start))
        for name, start in series.items()
    }
