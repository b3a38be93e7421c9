"""A text that is too long for its place → the pieces of it that are to be read. Pure: knows no tokenizer.

Pieces follow one another without overlap, and each is as much as fits: it ends where a token does, be that within a
word. A piece's text is tokenised anew, which may give a token more than it had within the whole; so each is counted in
its place, and ends earlier where it would not fit.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from nearfar.core.types import KeepSide

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Spans = Sequence[tuple[int, int]]  # where each token lies in its text, in characters


class TokenBudget(NamedTuple):
    """The place of a document: how many tokens it may have there, and how many a text would have."""

    max_tokens: int
    count: Callable[[str], int]


class Chunking(Struct, frozen=True, kw_only=True):
    """How much of a text is read: its first (or last) ``limit`` tokens, in at most so many pieces."""

    max_chunks: int = 1
    max_tokens: int | None = None
    keep: KeepSide = "start"


class Chunks(NamedTuple):
    """The pieces in the text's order, the tokens of all of it, and those of them that are in no piece."""

    texts: list[str]
    token_count: int
    truncated_tokens: int


def chunk(text: str, spans: Spans, room: TokenBudget, how: Chunking) -> Chunks:
    """Cut the text, whose tokens lie at ``spans``, into pieces; from its end backwards to ``keep`` the end."""
    if not spans:
        return Chunks([text], 0, 0)
    count = len(spans)
    bounds = [0, *accumulate((stop for _, stop in spans[:-1]), max), len(text)]
    size = max(min(room.max_tokens, how.max_tokens or room.max_tokens), 1)
    late = how.keep == "end"
    start, stop = (
        (count - min(how.max_tokens or count, count), count) if late else (0, min(how.max_tokens or count, count))
    )
    texts: list[str] = []
    while start < stop and len(texts) < how.max_chunks:
        if late:
            at, end = _last(text, bounds, (start, stop), size, room), stop
            stop = at
        else:
            at, end = start, _first(text, bounds, (start, stop), size, room)
            start = end
        texts.append(text[bounds[at] : bounds[end]])
    whole = how.max_tokens or count
    return Chunks(texts[::-1] if late else texts, count, (stop - start) + max(count - whole, 0))


def _first(text: str, bounds: Sequence[int], window: tuple[int, int], size: int, room: TokenBudget) -> int:
    """Say at which token the first piece of the window ends."""
    start, stop = window
    end = min(start + size, stop)
    while end > start + 1 and (over := room.count(text[bounds[start] : bounds[end]]) - size) > 0:
        end = max(end - over, start + 1)
    # Several tokens may be one character's; and in its place a text may have fewer tokens than it had here.
    while end < stop and (
        bounds[end] in {bounds[start], bounds[end + 1]} or room.count(text[bounds[start] : bounds[end + 1]]) <= size
    ):
        end += 1
    return end


def _last(text: str, bounds: Sequence[int], window: tuple[int, int], size: int, room: TokenBudget) -> int:
    """Say at which token the last piece of the window starts."""
    start, stop = window
    at = max(stop - size, start)
    while at < stop - 1 and (over := room.count(text[bounds[at] : bounds[stop]]) - size) > 0:
        at = min(at + over, stop - 1)
    while at > start and (bounds[at] == bounds[stop] or room.count(text[bounds[at - 1] : bounds[stop]]) <= size):
        at -= 1
    return at
