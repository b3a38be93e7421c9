"""Fair queueing: every caller gets the same share of the tokens that run, however much each has waiting.

Start-time fair queueing. Each caller has a virtual time, the tokens that ran for it, and the caller with the lowest is
next. A caller that arrives, or returns, starts at the lowest virtual time of those that wait, so idling earns no
credit. The requests of one caller take turns. No clock, no threads, no engine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from typing import Any, Generic, Protocol, TypeVar


class Queueable(Protocol):
    """A request. It is finished once no row of it waits or its future is done."""

    caller: str
    token_weight: float
    waiting: deque[int]
    future: asyncio.Future[Any]


_Request = TypeVar("_Request", bound=Queueable)


class FairQueue(Generic[_Request]):
    """Requests that wait, by caller."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_Request]] = {}
        self._virtual_time: dict[str, float] = {}

    def add(self, request: _Request) -> None:
        """Append a request to its caller's."""
        caller = request.caller
        if caller not in self._waiting:
            lowest = min(map(self._virtual_time.__getitem__, self._waiting), default=0.0)
            self._virtual_time[caller] = max(self._virtual_time.get(caller, 0.0), lowest)
            self._waiting[caller] = deque()
        self._waiting[caller].append(request)

    def next(self, limit: int) -> list[_Request]:
        """Return up to ``limit`` unfinished requests: first the one that runs next, then round-robin by caller."""
        for caller, requests in list(self._waiting.items()):
            while requests and (not requests[0].waiting or requests[0].future.done()):
                requests.popleft()
            if not requests:
                del self._waiting[caller]
        if not self._waiting:
            self._virtual_time.clear()
            return []
        callers = sorted(self._waiting, key=self._virtual_time.__getitem__)
        queues = [islice(self._waiting[caller], limit) for caller in callers]
        found: list[_Request] = []
        for request in chain.from_iterable(zip_longest(*queues)):
            if request is not None and request.waiting and not request.future.done():
                found.append(request)
                if len(found) == limit:
                    break
        return found

    def rotate(self, request: _Request) -> None:
        """Move the request that ran behind the others of its caller."""
        requests = self._waiting[request.caller]
        if requests[0] is request:  # finished requests before it are dropped by the next ``next``
            requests.rotate(-1)

    def charge(self, request: _Request, tokens: float) -> None:
        """Charge the caller for tokens that run; those of a less urgent request cost more."""
        self._virtual_time[request.caller] += tokens * request.token_weight

    def clear(self) -> list[_Request]:
        """Remove and return all requests."""
        requests = list(self)
        self._waiting.clear()
        self._virtual_time.clear()
        return requests

    def __iter__(self) -> Iterator[_Request]:
        return chain.from_iterable(self._waiting.values())
