"""The waiting requests of a model, by caller: which runs next, and how much runs before it. No clock, no engine."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from operator import attrgetter

from nearfar.serving.queue.batch import QueuedRequest

# A request that is next is overtaken by those that are so many times shorter. A guess.
_OVERTAKES = 8
_order, _tokens, _waiting_tokens = attrgetter("order"), attrgetter("tokens"), attrgetter("waiting_tokens")


class CallerQueue:
    """The waiting requests of one caller: shortest first, with aging.

    A request that has begun runs to its end: bulk that took turns would all be late. The others are sorted by
    ``order``: their weighted tokens plus the tokens that had run for this caller when they arrived. The shortest one
    overtakes a request that is ``_OVERTAKES`` times longer, but only while no more tokens have overtaken that request
    than have run of it. So short requests don't wait behind bulk, and bulk doesn't starve.
    """

    __slots__ = ("_begun", "_overtaken", "_ran", "_requests", "tokens")

    def __init__(self) -> None:
        self.tokens = 0  # that wait
        self._requests: list[QueuedRequest] = []  # that haven't begun, in order
        self._begun: list[QueuedRequest] = []  # or overtaken; the last one overtakes those before it
        self._overtaken = 0  # tokens that overtook the first of them, less those that ran of it
        self._ran = 0

    def add(self, request: QueuedRequest) -> None:
        """Insert a request."""
        request.order = self._order_of(request)
        insort(self._requests, request, key=_order)
        self.tokens += request.waiting_tokens

    def _order_of(self, request: QueuedRequest) -> float:
        return self._ran + request.waiting_tokens * request.token_weight

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Yield the requests, first the one that runs next."""
        in_order = chain(reversed(self._begun), self._requests)
        if short := self._find_overtaking():
            return chain([short], (request for request in in_order if request is not short))
        return in_order

    def _find_overtaking(self) -> QueuedRequest | None:
        """Return the shortest request if it may overtake the one that is next."""
        if self._overtaken > 0 or not self._requests or len(self._begun) + len(self._requests) == 1:
            return None
        next_one = self._begun[-1] if self._begun else self._requests[0]
        short = min((one for one in self._requests if one.waiting), key=_waiting_tokens, default=next_one)
        return short if short.waiting_tokens * _OVERTAKES <= next_one.waiting_tokens else None

    def begin(self, request: QueuedRequest) -> None:
        """Record that a request runs next: the first one, or one that overtakes it."""
        if self._begun and request is self._begun[-1]:
            return
        if not self._begun:
            self._overtaken = 0
            if request is not self._requests[0]:
                self._begun.append(self._requests.pop(0))
        self._begun.append(request)
        self._requests.remove(request)

    def charge(self, request: QueuedRequest, tokens: int) -> None:
        """Record that tokens of a request run."""
        request.waiting_tokens -= tokens
        self.tokens -= tokens
        self._ran += tokens
        self._overtaken += -tokens if self._begun and request is self._begun[0] else tokens

    def drop(self, request: QueuedRequest) -> None:
        """Forget the rows of a request that wait."""
        self.tokens -= request.waiting_tokens
        request.waiting_tokens = 0
        request.waiting.clear()

    def drop_finished(self) -> bool:
        """Remove finished requests. Return whether any is left."""
        while self._begun and self._begun[-1].is_finished():
            self.drop(self._begun.pop())
        finished = 0
        for request in self._requests:
            if not request.is_finished():
                break
            self.drop(request)
            finished += 1
        del self._requests[:finished]
        return bool(self._begun or self._requests)

    def tokens_before(self, request: QueuedRequest) -> int:
        """Return the tokens that run before a request that is added now."""
        place = bisect_right(self._requests, self._order_of(request), key=_order)
        before = [one.waiting_tokens for one in chain(self._begun, self._requests[:place]) if one.waiting_tokens]
        ahead, own = sum(before), request.waiting_tokens
        if not before or own * _OVERTAKES > before[0]:
            return ahead
        shorter = sum([tokens for tokens in before if tokens <= own])
        return shorter + min(ahead - shorter, shorter + own)


class FairQueue:
    """Requests that wait, by caller. Every caller gets the same share of the tokens that run.

    Start-time fair queueing. Each caller has a virtual time, the tokens that ran for it, and the caller with the lowest
    is next; of equal ones, the one with the fewest tokens that wait. A caller that arrives, or returns, starts at the
    lowest virtual time of those that wait, so idling earns no credit.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, CallerQueue] = {}
        self._virtual_time: dict[str, float] = {}

    def count_tokens(self) -> int:
        """Return the tokens that wait, of all callers."""
        return sum(map(_tokens, self._waiting.values()))

    def add(self, request: QueuedRequest) -> None:
        """Insert a request among its caller's."""
        caller = request.caller
        if caller not in self._waiting:
            lowest = min(map(self._virtual_time.__getitem__, self._waiting), default=0.0)
            self._virtual_time[caller] = max(self._virtual_time.get(caller, 0.0), lowest)
            self._waiting[caller] = CallerQueue()
        self._waiting[caller].add(request)

    def next(self, limit: int) -> list[QueuedRequest]:
        """Return up to ``limit`` unfinished requests: first the one that runs next, then round-robin by caller."""
        for caller, queue in list(self._waiting.items()):
            if not queue.drop_finished():
                del self._waiting[caller]
        if not self._waiting:
            self._virtual_time.clear()
            return []
        callers = sorted(self._waiting, key=lambda name: (self._virtual_time[name], self._waiting[name].tokens))
        queues = [islice(self._waiting[caller], limit) for caller in callers]
        found: list[QueuedRequest] = []
        for request in chain.from_iterable(zip_longest(*queues)):
            if request is not None and not request.is_finished():
                found.append(request)
                if len(found) == limit:
                    break
        return found

    def begin(self, request: QueuedRequest) -> None:
        """Record that a request runs next, the first of its caller."""
        self._waiting[request.caller].begin(request)

    def charge(self, request: QueuedRequest, tokens: int) -> None:
        """Charge the caller for tokens that run; those of a less urgent request cost more."""
        self._waiting[request.caller].charge(request, tokens)
        self._virtual_time[request.caller] += tokens * request.token_weight

    def drop(self, request: QueuedRequest) -> None:
        """Forget the rows of a request that was cancelled or failed."""
        if queue := self._waiting.get(request.caller):
            queue.drop(request)

    def tokens_before(self, request: QueuedRequest) -> int:
        """Return the tokens that run before a request that is added now is done, without its own."""
        queue = self._waiting.get(request.caller)
        ahead = queue.tokens_before(request) if queue else 0
        return ahead + self._tokens_of_others(request, ahead + request.waiting_tokens)

    def _tokens_of_others(self, request: QueuedRequest, tokens: int) -> int:
        """Return the tokens of other callers that run while so many of this request's caller run."""
        share = round(tokens * request.token_weight)
        return sum([min(queue.tokens, share) for caller, queue in self._waiting.items() if caller != request.caller])

    def find_late(self, tokens_per_s: float, now: float) -> Iterator[tuple[QueuedRequest, int]]:
        """Yield requests that haven't begun and can't be answered in time, with the tokens that run before them."""
        for queue in self._waiting.values():
            ahead = 0
            for request in queue:
                own = request.waiting_tokens
                if own == request.total_tokens and not request.future.done():
                    before = ahead + self._tokens_of_others(request, ahead + own)
                    if before + own > (request.stopwatch.deadline - now) * tokens_per_s:
                        yield request, before
                        continue
                ahead += own

    def clear(self) -> list[QueuedRequest]:
        """Remove and return all requests."""
        requests = list(self)
        self._waiting.clear()
        self._virtual_time.clear()
        return requests

    def __iter__(self) -> Iterator[QueuedRequest]:
        return chain.from_iterable(self._waiting.values())
