"""Where tokenizing happens: on the loop where that is quicker, else on two threads, and only so much waits for them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from nearfar.core.errors import Overloaded
from nearfar.serving.queue.thread_boundary import contained

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

WORKERS = 2
_AT_ONCE = 1000  # characters; they take at most 0.4 ms, and handing them to a thread 0.15 ms
_MOST_WAITING = 50_000_000  # characters that wait for a thread: five of the largest bodies; a guess


class TokenizerPool:
    """Runs what reads texts. One for the whole server."""

    def __init__(self) -> None:
        # Tokenizing releases the GIL and takes microseconds a text, up to 50 ms for a long one. Two threads: the rare
        # text that has to be read for seconds (10 MB of few tokens) doesn't hold up the others by itself.
        self._threads = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="tokens")
        self._waiting = 0

    def close(self) -> None:
        """Drop what waits to be tokenized."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, size: int, call: Callable[[], _T]) -> _T:
        """Call what reads so many characters. Raises Overloaded when too many of them wait already."""
        if size <= _AT_ONCE:
            return contained(call)
        if self._waiting and self._waiting + size > _MOST_WAITING:
            raise Overloaded("too much text waits to be tokenized", retry_after_s=1)
        self._waiting += size
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, contained, call)
        finally:
            self._waiting -= size
