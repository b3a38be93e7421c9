"""What one caller may ask for: so many requests at once, so many tokens a minute. Knows no keys and no HTTP."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nearfar.core.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAX_RETRY_AFTER_S = 60  # clients stop retrying altogether when told much longer


class Allowance:
    """One caller's limits and what is left of them; None for no limit. Used on the event loop only.

    Tokens are those that go through a model. They come back evenly; a minute's worth may be spent at once, and a
    request that is larger than that is let in when the whole of it is there, and paid off afterwards.
    """

    def __init__(
        self,
        max_concurrent: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_concurrent = max_concurrent
        self._tokens_per_minute = tokens_per_minute
        self._clock = clock
        self._running = 0
        self._left = float(tokens_per_minute or 0)
        self._counted_at = clock()

    @contextmanager
    def one_request(self) -> Iterator[None]:
        """Count a request for as long as it lasts. Raises Overloaded when there are too many already."""
        if self._max_concurrent is not None and self._running >= self._max_concurrent:
            raise Overloaded(f"this key may have {self._max_concurrent} requests at once", retry_after_s=1)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def spend(self, tokens: int) -> None:
        """Take tokens. Raises Overloaded, and says when to come back, where so many aren't there."""
        if self._tokens_per_minute is None:
            return
        now = self._clock()
        grown = (now - self._counted_at) * self._tokens_per_minute / 60
        self._left, self._counted_at = min(self._left + grown, self._tokens_per_minute), now
        missing = min(tokens, self._tokens_per_minute) - self._left
        if missing > 0:
            wait_s = math.ceil(missing * 60 / self._tokens_per_minute)
            said = f"this key may use {self._tokens_per_minute} tokens a minute"
            raise Overloaded(said, retry_after_s=min(max(wait_s, 1), _MAX_RETRY_AFTER_S))
        self._left -= tokens

    def give_back(self, tokens: int) -> None:
        """Return tokens that didn't go through a model after all."""
        self._left += tokens
