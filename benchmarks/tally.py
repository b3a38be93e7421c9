"""What of a stream's answers counts, and what it comes to. Standard library only, for the load generator."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from answers import OK, Answer
from orders import Figure, Order, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

_COMPLAINT = 300  # characters of the first failure that are worth reading


class Stretch:
    """The part of a run that counts.

    In a closed loop it goes from the first answer after the warm-up to the first one at least ``seconds`` and one turn
    of all clients later, so that answers that come in lumps, or once in many seconds, are neither counted twice nor
    lost at its ends. In an open loop it is fixed, and what was *scheduled* in it counts, however late the answer.
    """

    def __init__(self, begin: float, seconds: float, clients: int, *, fixed: bool) -> None:
        self.begun = begin
        self.ended = begin + seconds if fixed else math.inf
        self._fixed = fixed
        self._missing = clients  # answers
        self._seconds = seconds
        self._waits = not fixed

    def counts(self, since: float, now: float) -> bool:
        """Say whether the answer that came now, to what was due at ``since``, counts."""
        if self._fixed:
            return self.begun <= since < self.ended
        if self._waits:
            if now >= self.begun:
                self.begun, self._waits = now, False
            return False
        if now > self.ended:
            return False
        self._missing -= 1
        if now >= self.begun + self._seconds and self._missing <= 0:
            self.ended = now
        return True


class Tally:
    """Counts the answers of one stream."""

    def __init__(self, stream: Stream, order: Order, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock
        self._fixed = stream.rate is not None
        self._stretch = Stretch(clock() + order.warm_s, order.seconds, stream.clients, fixed=self._fixed)
        self._times: list[float] = []
        self._last = 0.0
        self._failures: Counter[str] = Counter()
        self._complaint = ""
        self._kept: dict[int, str] = {}
        self._answered = 0

    def wants(self, number: int) -> bool:
        """Say whether the answer to this body should be kept."""
        return number < self._stream.keep and number not in self._kept

    def is_over(self) -> bool:
        """Say whether nothing that is sent from now on can count."""
        return self._clock() >= self._stretch.ended

    def answered(self, number: int, since: float, answer: Answer) -> None:
        """Count an answer that is complete now."""
        now = self._clock()
        counts = self._stretch.counts(since, now)
        if answer.status != OK:
            self.failed(str(answer.status), answer.body())
            return
        self._answered += 1
        if self.wants(number):
            self._kept[number] = answer.body()
        if counts:
            self._times.append(now - since)
            self._last = now

    def failed(self, how: str, complaint: str = "", count: int = 1) -> None:
        """Count what wasn't answered with 200."""
        self._failures[how] += count
        self._complaint = self._complaint or complaint[:_COMPLAINT]

    def figure(self) -> Figure:
        """Sum up. In an open loop, answers that came late stretch the time that the rate is over."""
        end = max(self._last, self._stretch.ended) if self._fixed else min(self._stretch.ended, self._clock())
        rate = len(self._times) / max(end - self._stretch.begun, 1e-9)
        times_ms = sorted(1000 * took for took in self._times) or [math.nan]
        p50, p95, p99 = (times_ms[math.ceil(share * len(times_ms)) - 1] for share in (0.50, 0.95, 0.99))
        return Figure(
            name=self._stream.name,
            requests_per_s=rate,
            texts_per_s=rate * self._stream.texts,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            max_ms=times_ms[-1],
            answered=len(self._times),
            failures=dict(self._failures),
            complaint=self._complaint,
            kept=tuple(self._kept.items()),
            all_texts=self._answered * self._stream.texts,
        )
