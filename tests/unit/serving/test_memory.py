"""Who has to go when a model doesn't fit."""

from __future__ import annotations

import pytest

from nearfar.serving.registry.eviction import Held, choose_to_close


def held(name: str, size: int, last_used: float, *, can_close: bool = True) -> Held:
    return Held(name=name, bytes=size, last_used=last_used, can_close=can_close)


OLD, NEW, NEWEST = held("old", 10, 1), held("new", 10, 2), held("newest", 10, 3)
BUSY = held("busy", 10, 0, can_close=False)
SMALL, LARGE = held("small", 1, 1), held("large", 20, 2)


@pytest.mark.parametrize(
    ("there", "needed", "budget", "closed"),
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
def test_the_least_recently_used_go_as_many_as_it_takes_and_none_in_vain(
    there: list[Held], needed: int, budget: int, closed: list[str] | None
) -> None:
    """None in vain: not where it wouldn't be enough, and not where another has to go that makes room for both."""
    assert closed == choose_to_close(there, needed, budget)
