"""The ollama client, synchronous and asynchronous. Its API key goes into the headers."""

import asyncio

import ollama
import pytest
from matrix import FLAKY_URL, KEY, LIMITED, TEXTS, UNKNOWN, URL, WRONG_KEY, assert_vectors, limited

MODEL = "all-minilm"


def _options(url: str = URL, key: str = KEY) -> dict[str, object]:
    return {"host": url, "headers": {"Authorization": f"Bearer {key}"}}


def test_embeddings_of_many_texts() -> None:
    found = ollama.Client(**_options()).embed(MODEL, TEXTS)

    assert_vectors(TEXTS, found.embeddings)
    assert found.prompt_eval_count > len(TEXTS)
    assert found.total_duration > 0
    assert found.model


def test_embeddings_of_one_text_with_dimensions() -> None:
    found = ollama.Client(**_options()).embed(MODEL, TEXTS[0], dimensions=64, truncate=True, keep_alive="5m")

    assert_vectors(TEXTS[:1], found.embeddings, dimensions=64)


def test_embeddings_by_the_deprecated_method() -> None:
    found = ollama.Client(**_options()).embeddings(MODEL, TEXTS[0], options={"num_ctx": 256}, keep_alive=10.0)

    assert_vectors(TEXTS[:1], [found.embedding])


def test_embeddings_of_the_asynchronous_client() -> None:
    async def run() -> tuple[object, object]:
        client = ollama.AsyncClient(**_options())
        return await asyncio.gather(client.embed(MODEL, TEXTS), client.embeddings(MODEL, TEXTS[0]))

    many, one = asyncio.run(run())

    assert_vectors(TEXTS, many.embeddings)
    assert_vectors(TEXTS[:1], [one.embedding])


def test_other_models_are_listed_and_shown() -> None:
    client = ollama.Client(**_options())

    listed = client.list().models
    shown = client.show(listed[0].model)

    assert listed[0].modified_at
    assert listed[0].size > 0
    assert listed[0].digest
    assert "embedding" in shown.capabilities
    assert shown.details.family
    assert any(name.endswith(".embedding_length") for name in shown.modelinfo)


def test_other_running_models_are_listed() -> None:
    running = ollama.Client(**_options()).ps().models

    assert running
    assert running[0].model
    assert running[0].size > 0


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        ollama.Client(**_options()).embed(UNKNOWN, "a")

    assert 404 == caught.value.status_code
    assert isinstance(caught.value.error, str)
    assert UNKNOWN in caught.value.error


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        ollama.Client(**_options(key=WRONG_KEY)).embed(MODEL, "a")

    assert 401 == caught.value.status_code
    assert isinstance(caught.value.error, str)
    assert WRONG_KEY not in caught.value.error


def test_no_retry_but_its_own_error_after_a_rate_limit() -> None:
    with limited(requests=1), pytest.raises(ollama.ResponseError, match=LIMITED) as caught:
        ollama.Client(**_options(FLAKY_URL)).embed(MODEL, "a")

    assert 429 == caught.value.status_code
