"""What is measured: request sets (what a client sends) and scenarios (how many clients send it, and what else runs)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.load.spec import StreamSpec
from harness.workloads import Size, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.launcher import LaunchSpec

_POOL = 2048  # different texts, so that two requests in flight hardly ever have the same text
_CHECKED_TEXTS = 64  # compared with the reference, per scenario and round
_LARGEST_REQUEST = 2048  # texts; the most that OpenAI's protocol allows
_MAX_IN_FLIGHT = 512  # in an open loop

Encoding = Literal["float", "base64"]


@dataclass(frozen=True)
class Request:
    """The texts to embed or, with a query, the documents to score."""

    texts: tuple[str, ...]
    query: str = ""


@dataclass(frozen=True)
class RequestSet:
    """Requests of one kind and size."""

    name: str
    requests: tuple[Request, ...]
    encoding: Encoding = "float"

    @property
    def is_rerank(self) -> bool:
        """Return whether the requests ask for scores."""
        return bool(self.requests[0].query)

    def stream(self, spec: LaunchSpec, clients: int, rate: float | None = None) -> StreamSpec:
        """Encode the requests for a server; ``rate`` in requests/s makes it an open loop."""
        size = len(self.requests[0].texts)
        return StreamSpec(
            name=self.name,
            path=spec.rerank_path if self.is_rerank else spec.path,
            bodies=tuple(self._body(request, spec.model) for request in self.requests),
            texts_per_request=size,
            clients=clients,
            rate=rate,
            keep=max(1, _CHECKED_TEXTS // size),
        )

    def _body(self, request: Request, model: str) -> str:
        size = len(request.texts)
        if self.is_rerank:
            fields = {"model": "rerank-v3.5", "query": request.query, "documents": request.texts, "top_n": size}
            return json.dumps(fields)
        texts = request.texts[0] if size == 1 else request.texts
        return json.dumps({"model": model, "input": texts, "encoding_format": self.encoding})


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One measurement.

    With ``load_ratio`` it is an open loop, at that ratio of the requests/s of the scenario named ``baseline``.
    """

    name: str
    requests: RequestSet
    clients: int
    load_ratio: float | None = None
    baseline: str = ""
    background: RequestSet | None = None  # sent by one other client at the same time
    busy_core: bool = False  # whether another process keeps one core busy


def embed_requests(size: Size, count: int, encoding: Encoding = "float", pool: int = _POOL) -> RequestSet:
    """Return requests of ``count`` texts each, out of ``pool`` different texts."""
    found = texts(size, max(pool, count))
    starts = range(0, len(found) - count + 1, count)
    requests = tuple(Request(tuple(found[start : start + count])) for start in starts)
    return RequestSet(f"{size}{count}-{encoding}", requests, encoding)


def rerank_requests(documents: int) -> RequestSet:
    """Return requests of a short query and that many passages each."""
    passages, queries = texts("P", _POOL), texts("S", _POOL)
    starts = range(0, len(passages) - documents + 1, documents)
    requests = (Request(tuple(passages[start : start + documents]), queries[start]) for start in starts)
    return RequestSet(f"rerank{documents}", tuple(requests))


def server_scenarios() -> list[Scenario]:
    """Return the scenarios of the server benchmark. Open loops come right after their baseline."""
    short, single, hundred = embed_requests("S", 1), embed_requests("P", 1), rerank_requests(100)
    base64, passages = embed_requests("S", 1, "base64"), embed_requests("P", 32)
    loops = [(short, (1, 8, 32, 64, 512)), (base64, (1, 8, 32, 512, 64))]
    scenarios = [_closed_loop(requests, count) for requests, counts in loops for count in counts]
    scenarios += [
        Scenario(
            name=f"open-{ratio:.0%}",
            requests=base64,
            clients=_MAX_IN_FLIGHT,
            load_ratio=ratio,
            baseline="S1-base64-c64",
        )
        for ratio in (0.25, 0.5, 0.75, 0.9)
    ]
    batches = [(passages, 1), (passages, 8), (embed_requests("S", 32), 8), (embed_requests("M", 32), 8)]
    batches += [(single, 1), (single, 8), (hundred, 1), (hundred, 8)]
    scenarios += [_closed_loop(requests, count) for requests, count in batches]
    large = embed_requests("S", _LARGEST_REQUEST, "base64")
    scenarios.append(Scenario(name="fairness", requests=base64, clients=1, background=large))
    scenarios += [
        Scenario(name=f"busy-core-{requests.name}-c{count}", requests=requests, clients=count, busy_core=True)
        for requests, count in ((base64, 64), (passages, 8))
    ]
    return scenarios


def peer_scenarios() -> list[Scenario]:
    """Return the scenarios that servers are compared on."""
    short, passages, hundred = embed_requests("S", 1), embed_requests("P", 32), rerank_requests(100)
    return [_closed_loop(short, 64), _closed_loop(passages, 8), _closed_loop(hundred, 8), _closed_loop(short, 1)]


def texts_to_check(scenarios: Sequence[Scenario]) -> set[str]:
    """Return the texts of all responses that are compared with the reference."""
    both = (requests for scenario in scenarios for requests in (scenario.requests, scenario.background))
    sets = {requests.name: requests for requests in both if requests is not None}
    found: set[str] = set()
    for requests in sets.values():
        kept = max(1, _CHECKED_TEXTS // len(requests.requests[0].texts))
        for request in requests.requests[:kept]:
            found |= {*request.texts, request.query} - {""}
    return found


def _closed_loop(requests: RequestSet, clients: int) -> Scenario:
    return Scenario(name=f"{requests.name}-c{clients}", requests=requests, clients=clients)
