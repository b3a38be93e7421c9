"""One row of an engine's batch."""

from __future__ import annotations

from msgspec import Struct


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
    # Of a sample pair: which of the queries it has.
    query: int = 0
