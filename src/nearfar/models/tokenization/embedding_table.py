"""Finds tokens without a row in the model's embedding table, which has as many rows as config.json states."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from nearfar.core.errors import CheckpointError, InputError
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.tokenization.row import Row


class EmbeddingTable:
    """The special tokens that are outside of the table: ``missing``, their texts by id."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        """Raise CheckpointError for a token outside of the table that ordinary texts may contain."""
        size = read_optional_json(folder / "config.json", dict[str, Any]).get("vocab_size")
        self.missing: dict[int, str] = {}
        if not isinstance(size, int):
            return
        added = tokenizer.get_added_tokens_decoder()
        self.missing = {at: token.content for at, token in added.items() if at >= size}
        ordinary = next((text for at, text in self.missing.items() if not added[at].special), None)
        if ordinary is None and tokenizer.get_vocab_size(with_added_tokens=False) > size:
            ordinary = next(
                (text for text, at in tokenizer.get_vocab().items() if at >= size and at not in added), None
            )
        if ordinary is not None:
            raise CheckpointError(
                f"{folder}: its tokenizer has {ordinary!r}, but the model has no embedding for it (vocab_size "
                f"= {size} in config.json); remove it from the tokenizer's files, or use files that fit each other"
            )

    def check_template(self, ids: Iterable[int], folder: Path) -> None:
        """Raise CheckpointError if every text would get a token outside of the table."""
        if found := [self.missing[token] for token in ids if token in self.missing]:
            raise CheckpointError(
                f"{folder}: its tokenizer adds {found[0]!r} to every text, for which the model has no embedding; use a "
                "folder with a tokenizer and weights that fit each other"
            )

    def check(self, rows: Iterable[Row]) -> None:
        """Raise InputError for a text with a token outside of the table."""
        for row in rows:
            if found := [self.missing[token] for token in row.ids if token in self.missing]:
                raise InputError(f"a text contains {found[0]!r}, for which the model has no embedding; remove it")
