"""Who sent a request: by their key, and by what its headers say of urgency and patience."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from nearfar.core.caller import ANONYMOUS, LOWEST_PRIORITY, Caller
from nearfar.core.errors import InputError

if TYPE_CHECKING:
    from litestar.types import Scope

PRIORITY, TIMEOUT = b"x-nearfar-priority", b"x-nearfar-timeout-s"
TRIES = b"x-stainless-retry-count"  # OpenAI's clients say so
_MOST_DIGITS = 6


def caller_of(scope: Scope, priority: int | None = None) -> Caller:
    """Say who asks. ``priority`` is what the body says of it, and goes before the header.

    Raises InputError for a header that isn't a number in its range.
    """
    state: dict[str, Any] = scope["state"]
    caller: Caller = state.get("caller", ANONYMOUS)
    said = {name: value for name, value in scope["headers"] if name in {PRIORITY, TIMEOUT, TRIES}}
    if priority is None and PRIORITY in said:
        priority = int(_number(said, PRIORITY, 0, LOWEST_PRIORITY))
    timeout_s = _number(said, TIMEOUT, 0.001, 86_400) if TIMEOUT in said else None
    retries = int(said[TRIES]) if said.get(TRIES, b"").isdigit() and len(said[TRIES]) < _MOST_DIGITS else None
    if priority is None and timeout_s is None and retries is None:
        return caller
    return msgspec.structs.replace(caller, priority=priority or 0, timeout_s=timeout_s, retries=retries)


def _number(said: dict[bytes, bytes], name: bytes, least: float, most: float) -> float:
    try:
        number = float(said[name])
    except ValueError:
        number = -1
    if not least <= number <= most:
        raise InputError(f"{name.decode()} must be a number from {least:g} to {most:g}", name.decode())
    return number
