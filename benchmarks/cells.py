"""What is measured: loads (what clients send) and cells (how many send it, and what else goes on)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orders import Stream
from workloads import Name, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launch import Recipe

_POOL = 2048  # texts of each workload that clients take turns at: so many that hardly two ask for the same at once
_KEPT_TEXTS = 64  # whose values are checked, in every cell and round
_STREAMED = 2048  # texts in the longest request that OpenAI's protocol allows
_IN_FLIGHT = 512  # the most of an open loop

Encoding = Literal["float", "base64"]


@dataclass(frozen=True)
class Question:
    """What one request asks: vectors of texts, or with a query their scores."""

    texts: tuple[str, ...]
    query: str = ""


@dataclass(frozen=True)
class Load:
    """What every client of one kind sends."""

    name: str
    questions: tuple[Question, ...]
    encoding: Encoding = "float"

    @property
    def is_rerank(self) -> bool:
        """Say whether scores are asked for."""
        return bool(self.questions[0].query)

    def stream(self, recipe: Recipe, clients: int, rate: float | None = None) -> Stream:
        """Render it for the server of a recipe."""
        size = len(self.questions[0].texts)
        return Stream(
            name=self.name,
            path=recipe.rerank_path if self.is_rerank else recipe.path,
            bodies=tuple(self._body(question, recipe.model) for question in self.questions),
            texts=size,
            clients=clients,
            rate=rate,
            keep=max(1, _KEPT_TEXTS // size),
        )

    def _body(self, question: Question, model: str) -> str:
        if self.is_rerank:
            size = len(question.texts)
            fields = {"model": "rerank-v3.5", "query": question.query, "documents": question.texts, "top_n": size}
            return json.dumps(fields)
        asked = question.texts[0] if len(question.texts) == 1 else question.texts
        return json.dumps({"model": model, "input": asked, "encoding_format": self.encoding})


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measurement. ``share`` makes it an open loop, at that share of the requests/s that ``base`` reached."""

    name: str
    load: Load
    clients: int
    share: float | None = None
    base: str = ""
    beside: Load | None = None  # what one other client sends meanwhile
    has_neighbour: bool = False  # whether a busy process takes one core meanwhile


def embed_load(workload: Name, size: int, encoding: Encoding = "float", count: int = _POOL) -> Load:
    """Make requests of ``size`` texts each, out of ``count`` texts."""
    pool = texts(workload, max(count, size))
    cut = tuple(Question(tuple(pool[at : at + size])) for at in range(0, len(pool) - size + 1, size))
    return Load(f"{workload}{size}-{encoding}", cut, encoding)


def rerank_load(documents: int) -> Load:
    """Make requests of a short query and so many passages."""
    pool, queries = texts("P", _POOL), texts("S", _POOL)
    cut = range(0, len(pool) - documents + 1, documents)
    questions = (Question(tuple(pool[at : at + documents]), queries[at]) for at in cut)
    return Load(f"rerank{documents}", tuple(questions))


def server_cells() -> list[Cell]:
    """List what one server is measured on. Open loops stand right after the closed one that they are shares of."""
    short, single, hundred = embed_load("S", 1), embed_load("P", 1), rerank_load(100)
    compact, passages = embed_load("S", 1, "base64"), embed_load("P", 32)
    base = "S1-base64-c64"
    closed = [(short, (1, 8, 32, 64, 512)), (compact, (1, 8, 32, 512, 64))]
    cells = [_closed(load, count) for load, counts in closed for count in counts]
    cells += [
        Cell(name=f"open-{share:.0%}", load=compact, clients=_IN_FLIGHT, share=share, base=base)
        for share in (0.25, 0.5, 0.75, 0.9)
    ]
    batches = [(passages, 1), (passages, 8), (embed_load("S", 32), 8), (embed_load("M", 32), 8)]
    cells += [_closed(load, count) for load, count in [*batches, (single, 1), (single, 8), (hundred, 1), (hundred, 8)]]
    cells.append(Cell(name="fairness", load=compact, clients=1, beside=embed_load("S", _STREAMED, "base64")))
    cells += [
        Cell(name=f"neighbour-{load.name}-c{count}", load=load, clients=count, has_neighbour=True)
        for load, count in ((compact, 64), (passages, 8))
    ]
    return cells


def peer_cells() -> list[Cell]:
    """List what servers are compared on."""
    short, passages, hundred = embed_load("S", 1), embed_load("P", 32), rerank_load(100)
    return [_closed(short, 64), _closed(passages, 8), _closed(hundred, 8), _closed(short, 1)]


def texts_to_check(cells: Sequence[Cell]) -> set[str]:
    """Gather the texts whose vectors the cells' kept answers are compared with."""
    loads = {load.name: load for cell in cells for load in (cell.load, cell.beside) if load is not None}
    found: set[str] = set()
    for load in loads.values():
        kept = max(1, _KEPT_TEXTS // len(load.questions[0].texts))
        for question in load.questions[:kept]:
            found |= {*question.texts, question.query} - {""}
    return found


def _closed(load: Load, clients: int) -> Cell:
    return Cell(name=f"{load.name}-c{clients}", load=load, clients=clients)
