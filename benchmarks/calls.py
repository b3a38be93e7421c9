"""What a soak asks for: every dialect, many sizes, what is wrong, and callers who leave; and what should come back."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workloads import texts

if TYPE_CHECKING:
    from workloads import Name

_TOKENS = 100_000  # ids of cl100k_base are below


@dataclass(frozen=True)
class Call:
    """One request. ``leaves_s`` is after how long its caller hangs up; ``sends`` is how much of the body is sent."""

    name: str
    path: str
    body: bytes
    expected: int
    leaves_s: float | None = None
    sends: float = 1.0


class Calls:
    """Makes calls at random; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 — requests, not secrets
        sizes: tuple[Name, ...] = ("S", "P", "M")
        self._texts = {name: texts(name, 2048, seed) for name in sizes}

    def next(self) -> Call:
        """Make one: of twenty, three are wrong and two leave."""
        kind = self._rng.randrange(20)
        if kind < 3:  # noqa: PLR2004 — as said
            return self._wrong()
        call = self._right()
        if kind < 5:  # noqa: PLR2004 — as said
            sends = self._rng.choice((1.0, 1.0, self._rng.random()))
            return Call(f"{call.name}, left", call.path, call.body, call.expected, self._rng.random() * 0.3, sends)
        return call

    def _some(self) -> list[str]:
        name: Name = self._rng.choice(("S", "S", "M", "P"))
        count = self._rng.choice((1, 1, 2, 8, 32, 64) if name == "S" else (1, 2, 8))
        return self._rng.choices(self._texts[name], k=count)

    def _right(self) -> Call:
        some, query = self._some(), self._rng.choice(self._texts["S"])
        ids = [[self._rng.randrange(_TOKENS) for _ in range(self._rng.randrange(1, 60))] for _ in some[:8]]
        rank = {"query": query, "documents": some}
        table: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("openai", "/v1/embeddings", {"model": "text-embedding-3-small", "input": some}),
            (
                "openai base64",
                "/v1/embeddings",
                {"model": "text-embedding-3-small", "input": some, "encoding_format": "base64"},
            ),
            ("openai ids", "/v1/embeddings", {"model": "text-embedding-3-small", "input": ids}),
            (
                "cohere embed",
                "/v2/embed",
                {
                    "model": "embed-v4.0",
                    "texts": some,
                    "input_type": "search_document",
                    "embedding_types": ["float", "int8", "ubinary"],
                },
            ),
            ("cohere rerank", "/v2/rerank", {"model": "rerank-v3.5", **rank}),
            ("vllm score", "/score", {"model": "rerank-v3.5", "text_1": query, "text_2": some}),
            ("tei", "/embed", {"inputs": some}),
            ("tei rerank", "/rerank", {"query": query, "texts": some}),
            ("ollama", "/api/embed", {"model": "all-minilm", "input": some}),
            ("native", "/represent", {"model": "sentence-transformers/all-MiniLM-L6-v2", "input": some}),
        )
        name, path, body = self._rng.choice(table)
        return Call(name, path, json.dumps(body).encode(), 200)

    def _wrong(self) -> Call:
        model = {"model": "text-embedding-3-small"}
        table: tuple[tuple[str, str, object, int], ...] = (
            ("no json", "/v1/embeddings", b'{"model": "x", "input"', 400),
            ("nested", "/v1/embeddings", b"[" * 50_000, 400),
            ("no text", "/v1/embeddings", model | {"input": ""}, 400),
            ("too many", "/v1/embeddings", model | {"input": ["a"] * 2049}, 400),
            ("wrong type", "/v2/rerank", {"model": "rerank-v3.5", "query": 1, "documents": []}, 400),
            ("no model", "/v1/embeddings", {"model": "nobody's", "input": "a"}, 404),
            ("no ids", "/v1/embeddings", model | {"input": [10**9]}, 400),
            ("no path", "/v1/nothing", {}, 404),
            ("too large", "/v1/embeddings", b" " * 10_500_000, 413),
        )
        name, path, body, expected = self._rng.choice(table)
        return Call(name, path, body if isinstance(body, bytes) else json.dumps(body).encode(), expected)
