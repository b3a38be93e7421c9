"""Eviction: which models are unloaded when another doesn't fit."""

from __future__ import annotations

import pytest

from nearfar.serving.registry.eviction import LoadedModel, choose_evictions


def loaded(name: str, size: int, last_used: float, *, can_unload: bool = True) -> LoadedModel:
    return LoadedModel(name=name, bytes=size, last_used=last_used, can_unload=can_unload)


OLD, NEW, NEWEST = loaded("old", 10, 1), loaded("new", 10, 2), loaded("newest", 10, 3)
BUSY = loaded("busy", 10, 0, can_unload=False)
SMALL, LARGE = loaded("small", 1, 1), loaded("large", 20, 2)


@pytest.mark.parametrize(
    ("in_memory", "needed", "budget", "evicted"),
    [
        ([], 10, 10, []),
        ([OLD, NEW], 10, 30, []),
        ([NEW, OLD], 10, 20, ["old"]),
        ([NEWEST, NEW, OLD], 20, 30, ["old", "new"]),
        ([NEWEST, NEW, OLD], 30, 30, ["old", "new", "newest"]),
        ([BUSY, NEW, OLD], 10, 30, ["old"]),
        ([BUSY, NEW], 20, 30, ["new"]),
        ([BUSY, NEW], 21, 30, None),
        ([BUSY], 10, 10, None),
        ([SMALL, LARGE], 20, 21, ["large"]),
        ([SMALL, LARGE], 21, 21, ["small", "large"]),
        ([SMALL, LARGE], 1, 21, ["small"]),
        ([], 11, 10, None),
    ],
)
def test_the_least_recently_used_models_are_evicted_as_many_as_needed_and_none_in_vain(
    in_memory: list[LoadedModel], needed: int, budget: int, evicted: list[str] | None
) -> None:
    """None in vain: not where it wouldn't be enough, and not where another has to go that makes room for both."""
    assert evicted == choose_evictions(in_memory, needed, budget)
