"""The official Cohere clients, versions 1 and 2, against a real granian process with the real model."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import cohere
import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from process import ServerProcess
    from sentence_transformers import SentenceTransformer

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
    """Give a client whose connections are closed at the end, as it leaves them open by itself."""
    with httpx.Client(timeout=60) as connections:
        yield kind("unused", base_url=server.url + suffix, httpx_client=connections)


def _expected_scores(reference: SentenceTransformer) -> list[float]:
    query, *documents = reference.encode([QUERY, *DOCUMENTS], show_progress_bar=False)
    return [float((1 + query @ document) / 2) for document in documents]


@pytest.mark.parametrize("suffix", ["", "/v1"])
def test_version_2_ranks_by_the_stated_formula(
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


def test_version_1_ranks_and_gives_documents_back_when_asked(server: ServerProcess) -> None:
    documents: list[str | dict[str, str]] = [*DOCUMENTS[:3], {"text": DOCUMENTS[3]}]

    with _client(server, cohere.Client) as client:
        reply = client.rerank(query=QUERY, documents=documents, top_n=2, return_documents=True)

    assert [1, 0] == [found.index for found in reply.results]
    assert [DOCUMENTS[1], DOCUMENTS[0]] == [found.document and found.document.text for found in reply.results]


async def test_the_asynchronous_client_ranks(server: ServerProcess) -> None:
    async with httpx.AsyncClient(timeout=60) as connections:
        client = cohere.AsyncClientV2("unused", base_url=server.url, httpx_client=connections)
        reply = await client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=1)

    assert [1] == [found.index for found in reply.results]


@pytest.mark.parametrize(
    ("fields", "kind", "says"),
    [
        ({"query": " "}, cohere.BadRequestError, "query must not be empty"),
        ({"documents": []}, cohere.BadRequestError, "list of documents must not be empty"),
        ({"documents": ["a", ""]}, cohere.BadRequestError, "document at index 1 cannot be empty"),
        ({"top_n": 0}, cohere.BadRequestError, "top_n must be at least 1"),
        ({"model": "no-such-model"}, cohere.NotFoundError, "model 'no-such-model' not found"),
    ],
)
def test_what_is_refused_raises_the_clients_own_errors(
    server: ServerProcess, fields: dict[str, object], kind: type[cohere.core.ApiError], says: str
) -> None:
    with _client(server, cohere.ClientV2) as client, pytest.raises(kind) as caught:
        client.rerank(**{"model": "rerank-v3.5", "query": QUERY, "documents": DOCUMENTS, **fields})  # type: ignore[arg-type]

    assert says in caught.value.body["message"]
    assert caught.value.body["id"]


def test_a_top_n_over_the_count_gives_every_document(server: ServerProcess) -> None:
    with _client(server, cohere.ClientV2) as client:
        reply = client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=99)

    assert 4 == len(reply.results)
