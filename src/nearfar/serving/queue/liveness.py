"""Whether a lane still gives answers: when it last did, and what it has been asked since. Pure but for its clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FAILING_S = 10.0  # for how long an engine may fail on everything and still count as well; a guess


class Vitals:
    """``limit_s`` is how long work may go on, or fail, without a single answer."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._since = clock()  # the last answer, or the first request after everything before had been answered
        self.is_failing = False

    def asked(self, *, busy: bool) -> None:
        """Note a request; ``busy`` where others are being worked on."""
        if not busy and not self.is_failing:
            self._since = self._clock()

    def ran(self, *, answered: bool) -> None:
        """Note a batch, and whether any of its rows has an answer."""
        self.is_failing = not answered
        if answered:
            self._since = self._clock()

    def are_good(self, *, busy: bool) -> bool:
        """Tell whether there was an answer since the last request, or a little while ago."""
        silent_s = self._clock() - self._since
        return silent_s <= _FAILING_S if self.is_failing else not busy or silent_s <= self._limit_s

    @property
    def are_lost(self) -> bool:
        """Tell whether it has failed on everything, for so long that only another process may help."""
        return self.is_failing and self._clock() - self._since > self._limit_s
