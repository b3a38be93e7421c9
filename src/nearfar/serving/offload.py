"""Runs work on the event loop where it is small, and on a thread where it would delay other requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

# Rendering 32,768 floats takes about a millisecond; a thread for fewer costs more than it saves.
_MAX_ON_LOOP = 32_768


async def offload(numbers: int, call: Callable[[], _T]) -> _T:
    """Call a function that processes so many numbers."""
    return call() if numbers <= _MAX_ON_LOOP else await asyncio.to_thread(call)
