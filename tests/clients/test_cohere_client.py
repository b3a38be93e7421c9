"""The official Cohere clients for API v1 and v2, against a real server process with the built-in model."""

from __future__ import annotations

import math
from base64 import b64decode
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import cohere
import httpx
import numpy as np
import pytest
from cohere.base_client import BaseCohere

from nearfar.models.hub.builtin import BUILTIN_NAMES
from nearfar.serving.postprocess.quantization import quantize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cohere.types import EmbeddingType
    from sentence_transformers import SentenceTransformer
    from server_process import ServerProcess

_Client = TypeVar("_Client", cohere.Client, cohere.ClientV2)

pytestmark = pytest.mark.anyio

QUERY = "What is the capital of the United States?"
DOCUMENTS = [
    "Carson City is the capital city of the American state of Nevada.",
    "Washington, D.C. is the capital of the United States.",
    "Capital punishment has existed in the United States since before it was a country.",
    "Bananas are rich in potassium.",
]


@contextmanager
def _client(server: ServerProcess, kind: type[_Client], suffix: str = "") -> Iterator[_Client]:
    """Yield a client and close its connections, which it would leave open."""
    with httpx.Client(timeout=60) as connections:
        yield kind("unused", base_url=server.url + suffix, httpx_client=connections)


def _expected_scores(reference: SentenceTransformer) -> list[float]:
    query, *documents = reference.encode([QUERY, *DOCUMENTS], show_progress_bar=False)
    return [float((1 + query @ document) / 2) for document in documents]


@pytest.mark.parametrize("suffix", ["", "/v1"])
def test_api_v2_scores_are_half_of_one_plus_the_cosine(
    server: ServerProcess, reference: SentenceTransformer, suffix: str
) -> None:
    expected = _expected_scores(reference)

    with _client(server, cohere.ClientV2, suffix) as client:
        reply = client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS)

    assert sorted(range(4), key=lambda index: -expected[index]) == [found.index for found in reply.results]
    for found in reply.results:
        assert math.isclose(expected[found.index], found.relevance_score, abs_tol=1e-5)
    assert reply.meta
    assert reply.meta.billed_units
    assert 1 == reply.meta.billed_units.search_units


def test_api_v1_reranks_and_returns_documents_on_request(server: ServerProcess) -> None:
    documents: list[str | dict[str, str]] = [*DOCUMENTS[:3], {"text": DOCUMENTS[3]}]

    with _client(server, cohere.Client) as client:
        reply = client.rerank(query=QUERY, documents=documents, top_n=2, return_documents=True)

    assert [1, 0] == [found.index for found in reply.results]
    assert [DOCUMENTS[1], DOCUMENTS[0]] == [found.document and found.document.text for found in reply.results]


async def test_the_asynchronous_client_reranks(server: ServerProcess) -> None:
    async with httpx.AsyncClient(timeout=60) as connections:
        client = cohere.AsyncClientV2("unused", base_url=server.url, httpx_client=connections)
        reply = await client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=1)

    assert [1] == [found.index for found in reply.results]


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"query": " "}, cohere.BadRequestError, "query must not be empty"),
        ({"documents": []}, cohere.BadRequestError, "list of documents must not be empty"),
        ({"documents": ["a", ""]}, cohere.BadRequestError, "document at index 1 cannot be empty"),
        ({"top_n": 0}, cohere.BadRequestError, "top_n must be at least 1"),
        ({"model": "no-such-model"}, cohere.NotFoundError, "model 'no-such-model' not found"),
    ],
)
def test_an_invalid_rerank_request_raises_the_clients_own_error(
    server: ServerProcess, fields: dict[str, object], kind: type[cohere.core.ApiError], message: str
) -> None:
    with _client(server, cohere.ClientV2) as client, pytest.raises(kind) as caught:
        client.rerank(**{"model": "rerank-v3.5", "query": QUERY, "documents": DOCUMENTS, **fields})  # type: ignore[arg-type]

    assert message in caught.value.body["message"]
    assert caught.value.body["id"]


def test_a_top_n_above_the_number_of_documents_returns_all(server: ServerProcess) -> None:
    with _client(server, cohere.ClientV2) as client:
        reply = client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=99)

    assert 4 == len(reply.results)


TYPES: list[EmbeddingType] = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
TEXTS = [f"sentence number {number} about cats" for number in range(200)]


def _is_close(expected: np.ndarray, found: object) -> bool:
    return bool(np.allclose(expected, np.array(found, dtype=np.float32), atol=1e-4))


def test_api_v1_embeds_in_concurrent_batches_of_96(server: ServerProcess, reference: SentenceTransformer) -> None:
    expected = reference.encode(TEXTS, show_progress_bar=False)

    with _client(server, cohere.Client) as client:
        reply = client.embed(texts=TEXTS, model="embed-english-v3.0", input_type="search_document")

    assert "embeddings_floats" == reply.response_type
    assert TEXTS == reply.texts
    assert _is_close(expected, reply.embeddings)
    assert reply.meta
    assert reply.meta.billed_units
    assert sum(len(ids) for ids in reference.tokenizer(TEXTS)["input_ids"]) == reply.meta.billed_units.input_tokens


@pytest.mark.filterwarnings("ignore::DeprecationWarning:cohere")  # the client's own
def test_api_v1_embeds_by_type(server: ServerProcess, reference: SentenceTransformer) -> None:
    with _client(server, cohere.Client) as client:
        reply = client.embed(
            texts=TEXTS[:100], model="embed-v4.0", input_type="search_query", embedding_types=["float", "int8"]
        )

    assert "embeddings_by_type" == reply.response_type
    assert _is_close(reference.encode(TEXTS[:100], show_progress_bar=False), reply.embeddings.float_)
    assert 100 == len(reply.embeddings.int8 or [])
    assert reply.embeddings.binary is None


@pytest.mark.parametrize("suffix", ["", "/v1"])
def test_api_v2_returns_every_type_of_the_same_vectors(
    server: ServerProcess, reference: SentenceTransformer, suffix: str
) -> None:
    expected = reference.encode(TEXTS, show_progress_bar=False)
    with httpx.Client(timeout=60) as plain:
        limit = plain.get(f"{server.url}/v1/models").json()["data"][0]["int8_range"]

    with _client(server, cohere.ClientV2, suffix) as client:
        reply = client.embed(texts=TEXTS, model="embed-v4.0", input_type="search_document", embedding_types=TYPES)

    found = reply.embeddings
    floats = np.array(found.float_, dtype=np.float32)
    assert _is_close(expected, floats)
    assert quantize(floats, "int8", limit).tolist() == found.int8
    assert quantize(floats, "uint8", limit).tolist() == found.uint8
    assert quantize(floats, "binary", None).tolist() == found.binary
    assert quantize(floats, "ubinary", None).tolist() == found.ubinary
    assert [floats[at].astype("<f4").tobytes() for at in range(200)] == [b64decode(text) for text in found.base64 or []]


def test_api_v2_embeds_inputs_with_dimensions_truncated_from_the_start(
    server: ServerProcess, reference: SentenceTransformer
) -> None:
    expected = reference.encode(["jumps over the lazy dog"], show_progress_bar=False)[:, :128]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)

    with _client(server, cohere.ClientV2) as client:
        reply = client.embed(
            inputs=[{"content": [{"type": "text", "text": "The quick brown fox jumps over the lazy dog"}]}],  # type: ignore[list-item]
            model="embed-v4.0",
            input_type="search_document",
            output_dimension=128,
            max_tokens=5,
            truncate="START",
        )

    assert _is_close(expected, reply.embeddings.float_)


async def test_the_asynchronous_clients_embed(server: ServerProcess, reference: SentenceTransformer) -> None:
    expected = reference.encode(TEXTS[:2], show_progress_bar=False)
    async with httpx.AsyncClient(timeout=60) as connections:
        v1 = cohere.AsyncClient("unused", base_url=server.url, httpx_client=connections)
        reply_v1 = await v1.embed(texts=TEXTS[:2], model="embed-english-v3.0", input_type="clustering")
        v2 = cohere.AsyncClientV2("unused", base_url=server.url, httpx_client=connections)
        reply_v2 = await v2.embed(texts=TEXTS[:2], model="embed-v4.0", input_type="classification")

    assert _is_close(expected, reply_v1.embeddings)
    assert _is_close(expected, reply_v2.embeddings.float_)


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"texts": [""]}, cohere.BadRequestError, "empty string at index 0"),
        ({"texts": ["word " * 400], "truncate": "NONE"}, cohere.BadRequestError, "too many tokens"),
        ({"embedding_types": ["int4"]}, cohere.BadRequestError, "embedding_types must be of"),
        ({"output_dimension": 385}, cohere.BadRequestError, "output_dimension must be from 1 to 384"),
        ({"texts": None, "images": ["data:image/png;base64,AAAA"]}, cohere.BadRequestError, "image inputs"),
        ({"model": "no-such-model"}, cohere.NotFoundError, "model 'no-such-model' not found"),
    ],
)
def test_an_invalid_embed_request_raises_the_clients_own_error(
    server: ServerProcess, fields: dict[str, object], kind: type[cohere.core.ApiError], message: str
) -> None:
    arguments = {"model": "embed-v4.0", "texts": ["a cat"], "input_type": "search_query", **fields}

    with _client(server, cohere.ClientV2) as client, pytest.raises(kind) as caught:
        client.embed(**arguments)  # type: ignore[arg-type]

    assert message in caught.value.body["message"]


@pytest.mark.parametrize("offline", [False, True])
def test_tokenize_and_detokenize_round_trip(server: ServerProcess, *, offline: bool) -> None:
    """Offline, the default, the client requests the URL of a tokenizer; without one it calls the server."""
    text = "  Hello,\tWörld 🙂 — naïve  text\n"

    with _client(server, cohere.Client) as client:
        reply = client.tokenize(text=text, model="embed-english-v3.0", offline=offline)
        back = client.detokenize(tokens=reply.tokens, model="embed-english-v3.0", offline=False)

    assert text == "".join(reply.token_strings)
    assert len(reply.tokens) == len(reply.token_strings)
    assert "hello, world" in back.text


@pytest.mark.parametrize("suffix", ["", "/v1"])
def test_models_are_listed_and_retrieved_and_the_key_is_valid(server: ServerProcess, suffix: str) -> None:
    with httpx.Client(timeout=60) as connections:
        client = BaseCohere(token="unused", base_url=server.url + suffix, httpx_client=connections)
        listed = client.models.list(endpoint="embed", default_only=True, page_size=5)
        [model] = listed.models
        found = client.models.get("rerank-v3.5")
        key = client.check_api_key()

    assert (BUILTIN_NAMES[0], ["embed", "rerank"], 256) == (model.name, model.endpoints, model.context_length)
    assert (None, False, False) == (model.tokenizer_url, model.finetuned, model.is_deprecated)
    assert listed.next_page_token is None
    assert ("rerank-v3.5", ["embed", "rerank"]) == (found.name, found.default_endpoints)
    assert key.valid


def test_an_unknown_model_raises_not_found(server: ServerProcess) -> None:
    with _client(server, cohere.ClientV2) as client, pytest.raises(cohere.NotFoundError) as caught:
        client.models.get("command/r")

    assert "The model 'command/r' does not exist" == caught.value.body["message"]


def test_api_v1_scores_every_chunk_of_a_long_document(server: ServerProcess) -> None:
    long = " ".join(["bananas"] * 600) + " " + DOCUMENTS[1]

    with _client(server, cohere.Client) as client:
        reply = client.rerank(query=QUERY, documents=[DOCUMENTS[3], long], top_n=1)
        first_chunk = client.rerank(query=QUERY, documents=[DOCUMENTS[0], long], top_n=1, max_chunks_per_doc=1)

    assert [1] == [found.index for found in reply.results]
    assert [0] == [found.index for found in first_chunk.results]
