"""A text's tokens one by one, and ids back into text: what the routes that show the tokenizer need. Cuts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.core.errors import InvalidTokenIds
from nearfar.core.jobs import TokenSpan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

_IDS = range(2**32)  # what tokenizers can be asked about


def split(tokenizer: Tokenizer, text: str, *, special: bool) -> tuple[TokenSpan, ...]:
    """Give the text's tokens, with the special ones around it or without, and where each lies, in characters."""
    encoded = tokenizer.encode(text, add_special_tokens=special)
    # Their names are asked for by id: some tokenizers' encodings hold the text of what they don't know.
    return tuple(
        TokenSpan(token, tokenizer.id_to_token(token) or "", bool(added), *((0, 0) if added else span))
        for token, added, span in zip(encoded.ids, encoded.special_tokens_mask, encoded.offsets, strict=True)
    )


def join(tokenizer: Tokenizer, ids: Sequence[int], *, special: bool) -> str:
    """Turn ids into text, special tokens by their names or left out. Raises InvalidTokenIds for others' ids."""
    for found in ids:
        if found not in _IDS or tokenizer.id_to_token(found) is None:
            raise InvalidTokenIds(f"token {found} is not in this model's vocabulary", "tokens")
    text: str = tokenizer.decode(list(ids), skip_special_tokens=not special)
    return text
