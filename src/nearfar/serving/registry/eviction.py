"""Who has to go when a model doesn't fit. Pure: no clock, no models, no waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence


class Held(Struct, frozen=True, kw_only=True):
    """What one model takes of the budget, when it was last used, and whether it may be closed now."""

    name: str
    bytes: int
    last_used: float
    can_close: bool


def choose_to_close(held: Sequence[Held], needed: int, budget: int) -> list[str] | None:
    """Name the models to close so that ``needed`` bytes fit beside the others; the least recently used first.

    Empty where they fit as it is; None where it isn't enough to close every model that can be, so that none should be.
    A small one that was used long ago is spared where a larger one has to go anyway and makes room enough.
    """
    excess = sum(model.bytes for model in held) + needed - budget
    chosen: list[Held] = []
    for model in sorted((model for model in held if model.can_close), key=lambda model: model.last_used):
        if sum(one.bytes for one in chosen) >= excess:
            break
        chosen.append(model)
    spare = sum(model.bytes for model in chosen) - excess
    if spare < 0:
        return None
    for model in sorted(chosen, key=lambda model: -model.last_used):
        if model.bytes <= spare:
            chosen.remove(model)
            spare -= model.bytes
    return [model.name for model in chosen]
