"""Who is let into a model's queue, and when whoever isn't should come back. Knows sizes; knows no rows and no engine.

The queue is bounded in tokens and in requests. A refused caller gets an appointment: the time by which all that waits,
and all that was told to come back before, will have run. Were every caller sent away for the same time, they would come
back together, and most of them in vain. Appointments are kept: a caller who says that this is the first attempt may
fill only half of the queue while others are expected back, and one who has been refused so often that most clients give
up then may overfill it by half. They may not come; when the queue is empty it is open to all again.

Whoever fills the queue keeps no other caller out: up to an equal share of it each is let in though it is full, until
it holds twice what it should.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from nearfar.core.errors import Overloaded
from nearfar.core.types import QueueCapacity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nearfar.core.caller import Caller

_MOST_S = 60.0  # clients stop retrying altogether when told much longer
_LEAST_S = 0.5
_BLIND_S = 1.0  # before any batch has run
_NEW = 0.05  # what the newest request counts for in the tokens of a character
_LAST = 1.5  # how full the queue may be for who would give up
_GOLDEN = 0.6180339887  # its multiples, less their whole parts, are spread evenly however many there are


class QueueLimits(Struct, frozen=True, kw_only=True):
    """How many ``tokens``, and how many ``requests``, may wait for a model or run in it."""

    tokens: int
    requests: int


class Admission:
    """What is in one model's queue, in ``tokens`` and ``requests``. Used on the event loop only.

    ``drained`` gives the tokens that leave it in a second, 0 where nobody knows yet.
    """

    def __init__(
        self,
        model: str,
        limits: QueueLimits,
        drained: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.tokens = 0
        self.requests = 0
        self._model = model
        self._drained = drained
        self._clock = clock
        self._held: Counter[str] = Counter()  # tokens, by their callers' names
        self._promised: dict[int, int] = {}  # tokens, by the second in which they were told to come back
        self._tokens_a_character = 0.0
        self._put_off = 0

    @contextmanager
    def admit(self, tokens: int, caller: Caller) -> Iterator[None]:
        """Count a request for as long as it lasts. Raises Overloaded where there is no room for it."""
        tokens = self._charge(tokens)
        self._refuse_without_room(tokens, caller)
        self.tokens += tokens
        self.requests += 1
        self._held[caller.name] += tokens
        try:
            yield
        finally:
            self.tokens -= tokens
            self.requests -= 1
            self._held[caller.name] -= tokens
            if not self.requests:
                self._promised.clear()
                self._held.clear()

    def refuse_hopeless(self, characters: int, caller: Caller) -> None:
        """Raise Overloaded where texts of this size won't find room: reading them would only take time from others."""
        self._refuse_without_room(self._charge(round(characters * self._tokens_a_character)), caller)

    def learn(self, characters: int, tokens: int) -> None:
        """Note how many tokens texts of this size had, after they were read."""
        if characters:
            known, found = self._tokens_a_character, tokens / characters
            self._tokens_a_character = (1 - _NEW) * known + _NEW * found if known else found

    def capacity(self) -> QueueCapacity:
        """Tell how much more the queue takes, and how long it takes to empty."""
        rate = self._drained()
        return QueueCapacity(
            tokens_limit=self.limits.tokens,
            tokens_free=max(self.limits.tokens - self.tokens, 0),
            requests_limit=self.limits.requests,
            requests_free=max(self.limits.requests - self.requests, 0),
            drain_s=self.tokens / rate if rate else None if self.tokens else 0.0,
        )

    def _charge(self, tokens: int) -> int:
        """Charge a job larger than half of the queue for half: others are interleaved with it, not shut out."""
        return min(tokens, self.limits.tokens // 2)

    def _refuse_without_room(self, tokens: int, caller: Caller) -> None:
        part = 0.5 if caller.retries == 0 and self._expected() else _LAST if caller.is_last_attempt else 1.0
        if not self._holds(tokens, part) and not (self._holds(tokens, 2.0) and self._is_owed(tokens, caller)):
            raise Overloaded(f"the queue of {self._model} is full", self._appointment_s(tokens), self.capacity())

    def _holds(self, tokens: int, part: float) -> bool:
        """Tell whether so many more tokens, and a request, make no more than this part of the limits."""
        limits = self.limits
        return self.tokens + tokens <= limits.tokens * part and self.requests < max(limits.requests * part, 1)

    def _is_owed(self, tokens: int, caller: Caller) -> bool:
        """Tell whether other callers have what this one hasn't: an equal share of the queue."""
        others = sum(1 for name, held in self._held.items() if held and name != caller.name)
        return others > 0 and self._held[caller.name] + tokens <= self.limits.tokens // (others + 1)

    def _expected(self) -> int:
        """Count the tokens of those who were told to come back and whose time hasn't passed."""
        second = int(self._clock())
        self._promised = {due: tokens for due, tokens in self._promised.items() if due >= second}
        return sum(self._promised.values())

    def _appointment_s(self, tokens: int) -> float:
        """Give the seconds until there will be room for so many tokens, and keep it for them."""
        rate = self._drained()
        if not rate:
            return _BLIND_S
        wait_s = max((self.tokens + self._expected() + tokens) / rate, _LEAST_S)
        if wait_s > _MOST_S:  # nothing can be promised
            self._put_off += 1
            return _MOST_S * (1 + self._put_off * _GOLDEN % 1) / 2
        due = math.floor(self._clock() + wait_s)
        self._promised[due] = self._promised.get(due, 0) + tokens
        return wait_s
