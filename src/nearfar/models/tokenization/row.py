"""One input of an engine. Knows no tokenizer."""

from __future__ import annotations

from msgspec import Struct


class Row(Struct, frozen=True):
    """One input of an engine: ``ids`` with special tokens, ``type_ids`` of the same length or None for all zeros.

    ``content`` counts the tokens of the text, and of its prompt, before anything was cut; ``cut`` those that were cut
    off; neither counts special tokens. No token looks at the last ``unseen``. ``kept`` are the places of the tokens
    whose own vectors count, None for all.
    """

    ids: list[int]
    type_ids: list[int] | None
    content: int
    cut: int
    unseen: int = 0
    kept: list[int] | None = None
