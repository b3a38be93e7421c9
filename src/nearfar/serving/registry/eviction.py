"""Eviction: which models to unload so that another fits into the memory budget. Pure: no clock, no waiting."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class LoadedModel(Struct, frozen=True, kw_only=True):
    """A model in memory."""

    name: str
    bytes: int
    last_used: float
    can_unload: bool


def choose_evictions(loaded: Sequence[LoadedModel], needed: int, budget: int) -> list[str] | None:
    """Return the names of the models to unload, least recently used first, so that ``needed`` bytes fit the budget.

    Empty when they fit already; None when unloading all that can be unloaded isn't enough, so that none should be. A
    small model used long ago is spared where a larger one has to go anyway and frees enough.
    """
    excess = sum(model.bytes for model in loaded) + needed - budget
    chosen: list[LoadedModel] = []
    for model in sorted((model for model in loaded if model.can_unload), key=lambda model: model.last_used):
        if sum(other.bytes for other in chosen) >= excess:
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
