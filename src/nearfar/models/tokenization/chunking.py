"""Splits a text that is too long into consecutive chunks. Uses token offsets only, no tokenizer.

Chunks don't overlap, and each is as long as fits; it ends at a token, possibly within a word. A chunk that is tokenized
alone may have more tokens than it had within the text, so its length is counted that way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

from msgspec import Struct

from nearfar.core.types import KeepSide

Offsets = Sequence[tuple[int, int]]  # each token's start and end in the text, in characters


class TokenBudget(NamedTuple):
    """How many tokens a document may have in its prompt or pair, and how to count a text's tokens there."""

    max_tokens: int
    count: Callable[[str], int]


class Chunking(Struct, frozen=True, kw_only=True):
    """How a text is split."""

    max_chunks: int = 1
    # Only the text's first (or last) so many tokens are used; None means all.
    max_tokens: int | None = None
    keep: KeepSide = "start"


class Chunks(NamedTuple):
    """A text's chunks, in its order."""

    texts: list[str]
    # Tokens of the whole text, and those of them that are in no chunk.
    token_count: int
    truncated_tokens: int


def split_text(text: str, offsets: Offsets, budget: TokenBudget, how: Chunking) -> Chunks:
    """Split the text into chunks; backwards from its end to ``keep`` the end."""
    if not offsets:
        return Chunks([text], 0, 0)
    count = len(offsets)
    used = min(how.max_tokens or count, count)
    bounds = [0, *accumulate((end for _, end in offsets[:-1]), max), len(text)]  # token → its start in the text
    size = max(min(budget.max_tokens, how.max_tokens or budget.max_tokens), 1)
    splitter = _Splitter(text, bounds, budget, size)
    backwards = how.keep == "end"
    start, stop = (count - used, count) if backwards else (0, used)
    texts: list[str] = []
    while start < stop and len(texts) < how.max_chunks:
        if backwards:
            cut = splitter.start_of_last(start, stop)
            texts.append(text[bounds[cut] : bounds[stop]])
            stop = cut
        else:
            cut = splitter.end_of_first(start, stop)
            texts.append(text[bounds[start] : bounds[cut]])
            start = cut
    return Chunks(texts[::-1] if backwards else texts, count, (stop - start) + count - used)


class _Splitter(NamedTuple):
    """Finds where one chunk of at most ``size`` tokens ends."""

    text: str
    bounds: Sequence[int]
    budget: TokenBudget
    size: int

    def end_of_first(self, start: int, stop: int) -> int:
        """Return the token at which the first chunk of tokens ``start`` to ``stop`` ends."""
        bounds, end = self.bounds, min(start + self.size, stop)
        while end > start + 1 and (excess := self._excess(start, end)) > 0:
            end = max(end - excess, start + 1)
        # Extend: several tokens may share a character, and a chunk may have fewer tokens alone than in the text.
        while end < stop and (bounds[end] in {bounds[start], bounds[end + 1]} or self._excess(start, end + 1) <= 0):
            end += 1
        return end

    def start_of_last(self, start: int, stop: int) -> int:
        """Return the token at which the last chunk of tokens ``start`` to ``stop`` starts."""
        bounds, at = self.bounds, max(stop - self.size, start)
        while at < stop - 1 and (excess := self._excess(at, stop)) > 0:
            at = min(at + excess, stop - 1)
        while at > start and (bounds[at] == bounds[stop] or self._excess(at - 1, stop) <= 0):
            at -= 1
        return at

    def _excess(self, start: int, end: int) -> int:
        return self.budget.count(self.text[self.bounds[start] : self.bounds[end]]) - self.size
