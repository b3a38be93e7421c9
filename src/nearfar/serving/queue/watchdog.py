"""Whether a forward still gets anywhere. Nothing can end a thread that hangs, so this only tells; it ends nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# The limit is waited for in so many parts, and each has to pass in vain: a process that was stopped for an hour, or a
# machine that slept, then counts as one part and not as a forward of an hour.
_PARTS = 4
# A first call of its kind may compile what later ones run, and until one has run nothing tells how fast the model is.
_FIRST = 10
# How much slower than the last batches one may be: a long text takes more a token than short ones, a busy machine more
# for all. A guess, far on the safe side: to be restarted for being slow would be worse than to wait.
_SLOWER = 20


class Stopped(Exception):
    """A lane has to stop, as no forward of it will end or succeed any more; the message tells why."""


def patience_s(limit_s: float, tokens: int, tokens_per_s: float, *, first: bool) -> float:
    """Give the seconds after which a forward of so many tokens counts as hanging; never less than the limit."""
    if first or not tokens_per_s:
        return _FIRST * limit_s
    return max(limit_s, _SLOWER * tokens / tokens_per_s)


async def ends(running: asyncio.Future[Any], calls: Callable[[], int], limit_s: float) -> bool:
    """Wait for the end and tell True; or False once ``calls`` has stayed the same for longer than the limit.

    May say so a part of the limit late, never early. Cancelled, it cancels what runs, as awaiting that would.
    """
    seen, parts = calls(), 0
    try:
        while not running.done() and parts < _PARTS:
            await asyncio.wait({running}, timeout=limit_s / _PARTS)
            now = calls()
            seen, parts = now, (parts + 1 if now == seen else 0)
    except asyncio.CancelledError:
        running.cancel()
        raise
    return running.done()
