"""Who asks: a name to share the engine by, what they may do and how much of it, how urgent it is, and until when."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from nearfar.core.allowance import Allowance
from nearfar.core.errors import Forbidden

Scope = Literal["embed", "rerank", "admin"]
EVERYTHING: tuple[Scope, ...] = ("embed", "rerank", "admin")
MOST_TRIES = 2  # after these, OpenAI's clients give up as they come
LEAST_URGENT = 999  # Cohere's scale: 0 is the most urgent


class Caller(Struct, frozen=True, kw_only=True):
    """Whoever sent a request. Callers of one ``name`` have one share of the engine between them.

    ``priority`` goes from 0, the most urgent, to 999. ``deadline_s`` is how long they will wait, None for as long as
    the server lets them. ``tries`` counts how often they have been refused this request, None where they don't say.
    """

    name: str = ""
    scopes: tuple[Scope, ...] = EVERYTHING
    allowance: Allowance = Allowance()
    priority: int = 0
    deadline_s: float | None = None
    tries: int | None = None

    @property
    def is_new(self) -> bool:
        """Tell whether they say that they haven't asked before."""
        return self.tries == 0

    @property
    def is_at_last(self) -> bool:
        """Tell whether they say that they have been refused so often that most clients would give up."""
        return self.tries is not None and self.tries >= MOST_TRIES

    @property
    def weight(self) -> float:
        """Give what a token counts for: from 1 up to 11 for the least urgent, who thereby never starve."""
        return 1.0 + min(self.priority, LEAST_URGENT) / 100

    def refuse_without(self, scope: Scope) -> None:
        """Raise Forbidden where the caller may not do this."""
        if scope not in self.scopes:
            raise Forbidden(self.name, scope)


ANYBODY = Caller()
