"""The special tokens around a text, and around the two of a pair: learned from what the tokenizer puts there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.core.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Encoding


class TextTemplate:
    """The special tokens around a text, learned from one that was encoded with and without them."""

    def __init__(self, wrapped: Encoding, bare: Encoding) -> None:
        start = next((i for i in range(len(wrapped.ids)) if wrapped.ids[i : i + len(bare.ids)] == bare.ids), None)
        if start is None or not bare.ids:
            raise CheckpointError("tokenizer.json: its special tokens are not simply put around the text")
        self.prefix = wrapped.ids[:start]
        self.suffix = wrapped.ids[start + len(bare.ids) :]
        self.size = len(self.prefix) + len(self.suffix)


class PairTemplate:
    """The special tokens around and between the two texts of a pair, and the types of all of them."""

    def __init__(self, pair: Encoding, *, with_types: bool) -> None:
        sides = pair.sequence_ids  # None for special tokens
        first, second = sides.index(0), sides.index(1)
        spans = ((0, first), (first + sides.count(0), second), (second + sides.count(1), len(sides)))
        self._ids = [pair.ids[start:end] for start, end in spans]
        self._types = [pair.type_ids[start:end] for start, end in spans]
        self._sides = (pair.type_ids[first], pair.type_ids[second])
        self._with_types = with_types
        self.size = sum(len(ids) for ids in self._ids)

    def join(self, first: list[int], second: list[int]) -> tuple[list[int], list[int] | None]:
        """Put the two texts' ids in; give the whole, and its types where any is not 0."""
        before, between, after = self._ids
        ids = [*before, *first, *between, *second, *after]
        if not self._with_types:
            return ids, None
        before, between, after = self._types
        left, right = self._sides
        types = [*before, *([left] * len(first)), *between, *([right] * len(second)), *after]
        return ids, types if any(types) else None
