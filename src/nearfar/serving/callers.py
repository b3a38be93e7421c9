"""Who asks: a name to share the engine by, how urgent it is, and until when the answer is of use."""

from __future__ import annotations

from msgspec import Struct

LEAST_URGENT = 999  # Cohere's scale: 0 is the most urgent


class Caller(Struct, frozen=True, kw_only=True):
    """Whoever sent a request. Callers of one ``name`` share one share of the engine.

    ``priority`` goes from 0, the most urgent, to 999. ``deadline_s`` is how long they will wait, None for as long as
    the server lets them.
    """

    name: str = ""
    priority: int = 0
    deadline_s: float | None = None

    @property
    def weight(self) -> float:
        """Give what a token counts for: from 1 up to 11 for the least urgent, who thereby never starve."""
        return 1.0 + min(self.priority, LEAST_URGENT) / 100


ANYBODY = Caller()
