"""What the OpenAPI document says of a route: the types of its bodies, and an example of each."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Described(Struct, frozen=True, kw_only=True):
    """One route, for whoever reads about it.

    ``body`` and ``reply`` are types that msgspec can make a schema of; None for no body, and for an answer that isn't
    JSON. ``query`` are the parameters that may follow the path. The examples must be legal: tests send the one and hold
    an answer's shape against the other. ``media_type`` is the answer's.
    """

    summary: str
    body: Any = None
    reply: Any = None
    example: object = None
    reply_example: object = None
    query: dict[str, Any] = {}
    media_type: str = "application/json"


def described(summary: str, **about: Any) -> dict[str, Any]:
    """Give what goes into a handler's ``opt``."""
    return {"described": Described(summary=summary, **about)}
