"""One row of an engine's batch."""

from __future__ import annotations

from operator import attrgetter

from msgspec import Struct

row_ids = attrgetter("ids")  # for map and filter


class Row(Struct, frozen=True):
    """One text, or pair of texts, as token ids: one row of an engine's batch."""

    # Token ids, special tokens included.
    ids: list[int]
    # As long as ``ids``; None means 0 everywhere.
    type_ids: list[int] | None
    # Tokens of the text (and its prompt) before truncation, without special tokens.
    token_count: int
    # How many of those were cut off.
    truncated_tokens: int
    # How many of the last tokens no token attends to.
    unattended: int = 0
    # How many of the first tokens, which are a prompt's, are left out of the pooling.
    unpooled: int = 0
    # Positions of the tokens that have a vector; None means all.
    vector_positions: list[int] | None = None
    # Index of a sample pair's query: precisions are compared within a query.
    query: int = 0

    def cut(self, part: slice) -> Row:
        """Return a row of some of the ids, to compare engines with."""
        return Row(self.ids[part], self.type_ids and self.type_ids[part], 0, 0)
