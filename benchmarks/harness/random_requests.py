"""Random requests for the soak test: every dialect, many sizes, invalid ones, and clients that disconnect."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.workloads import texts

if TYPE_CHECKING:
    from harness.workloads import Size

_MAX_TOKEN_ID = 100_000  # cl100k_base has more
_INVALID, _DISCONNECTING = 3, 2  # requests of twenty
_MODEL = {"model": "text-embedding-3-small"}


@dataclass(frozen=True)
class RandomRequest:
    """One request and the status it should get.

    A client that disconnects sends ``sent_ratio`` of the body and closes the connection after ``disconnect_s``.
    """

    name: str
    path: str
    body: bytes
    status: int = 200
    disconnect_s: float | None = None
    sent_ratio: float = 1.0


class RandomRequests:
    """Generate requests. The same seed generates the same requests."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 — requests, not secrets
        sizes: tuple[Size, ...] = ("S", "P", "M")
        self._texts = {size: texts(size, 2048, seed) for size in sizes}

    def next(self) -> RandomRequest:
        """Return the next request."""
        kind = self._rng.randrange(20)
        if kind < _INVALID:
            return self._invalid()
        request = self._valid()
        if kind < _INVALID + _DISCONNECTING:
            sent = self._rng.choice((1.0, 1.0, self._rng.random()))
            after_s = self._rng.random() * 0.3
            return replace(request, name=f"{request.name}, disconnected", disconnect_s=after_s, sent_ratio=sent)
        return request

    def _some_texts(self) -> list[str]:
        size: Size = self._rng.choice(("S", "S", "M", "P"))
        count = self._rng.choice((1, 1, 2, 8, 32, 64) if size == "S" else (1, 2, 8))
        return self._rng.choices(self._texts[size], k=count)

    def _valid(self) -> RandomRequest:
        some, query = self._some_texts(), self._rng.choice(self._texts["S"])
        ids = [[self._rng.randrange(_MAX_TOKEN_ID) for _ in range(self._rng.randrange(1, 60))] for _ in some[:8]]
        name, path, body = self._rng.choice(_valid_bodies(some, ids, query))
        return RandomRequest(name, path, json.dumps(body).encode())

    def _invalid(self) -> RandomRequest:
        table: tuple[tuple[str, str, object, int], ...] = (
            ("invalid JSON", "/v1/embeddings", b'{"model": "x", "input"', 400),
            ("deeply nested", "/v1/embeddings", b"[" * 50_000, 400),
            ("empty text", "/v1/embeddings", _MODEL | {"input": ""}, 400),
            ("too many texts", "/v1/embeddings", _MODEL | {"input": ["a"] * 2049}, 400),
            ("wrong type", "/v2/rerank", {"model": "rerank-v3.5", "query": 1, "documents": []}, 400),
            ("unknown model", "/v1/embeddings", {"model": "no-such-model", "input": "a"}, 404),
            ("unknown token ids", "/v1/embeddings", _MODEL | {"input": [10**9]}, 400),
            ("unknown path", "/v1/nothing", {}, 404),
            ("body too large", "/v1/embeddings", b" " * 10_500_000, 413),
        )
        name, path, body, status = self._rng.choice(table)
        return RandomRequest(name, path, body if isinstance(body, bytes) else json.dumps(body).encode(), status)


def _valid_bodies(some: list[str], ids: list[list[int]], query: str) -> tuple[tuple[str, str, dict[str, Any]], ...]:
    cohere = {"model": "embed-v4.0", "texts": some, "input_type": "search_document"}
    builtin = "sentence-transformers/all-MiniLM-L6-v2"
    return (
        ("openai", "/v1/embeddings", _MODEL | {"input": some}),
        ("openai base64", "/v1/embeddings", _MODEL | {"input": some, "encoding_format": "base64"}),
        ("openai token ids", "/v1/embeddings", _MODEL | {"input": ids}),
        ("cohere embed", "/v2/embed", cohere | {"embedding_types": ["float", "int8", "ubinary"]}),
        ("cohere rerank", "/v2/rerank", {"model": "rerank-v3.5", "query": query, "documents": some}),
        ("vllm score", "/score", {"model": "rerank-v3.5", "text_1": query, "text_2": some}),
        ("tei", "/embed", {"inputs": some}),
        ("tei rerank", "/rerank", {"query": query, "texts": some}),
        ("ollama", "/api/embed", {"model": "all-minilm", "input": some}),
        ("native", "/represent", {"model": builtin, "input": some}),
    )
