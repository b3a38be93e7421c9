"""Which tokens of a text have a vector of their own that counts, and what is put after a query (ColBERT)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from tokenizers import AddedToken

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from nearfar.core.types import Role
    from nearfar.models.recipe.multi_vector import MultiVector
    from nearfar.models.tokenization.row import Row


def mark(row: Row, how: MultiVector, role: Role) -> Row:
    """Make the row of a text of this role longer where it should be, and note which of its tokens count."""
    ids, unattended = row.ids, 0
    if role == "query" and how.expansion and len(ids) < how.expansion.length:
        more = how.expansion.length - len(ids)
        ids = [*ids, *([how.expansion.token_id] * more)]
        unattended = 0 if how.expansion.attended else more
    skipped = how.skip_ids if role in how.skip_roles else frozenset[int]()
    positions = None
    if how.skip_first or not skipped.isdisjoint(ids):
        positions = [at for at, found in enumerate(ids) if at >= how.skip_first and found not in skipped]
    return msgspec.structs.replace(row, ids=ids, unattended=unattended, vector_positions=positions)


def register_markers(tokenizer: Tokenizer, how: MultiVector) -> None:
    """Let the tokenizer take a marker for one token where its vocabulary has it, with its space or without."""
    for marker in how.markers:
        words = (marker, *marker.split(maxsplit=1)[:1])
        known = next((word for word in words if tokenizer.token_to_id(word) is not None), None)
        if known and tokenizer.encode(known, add_special_tokens=False).tokens != [known]:
            tokenizer.add_special_tokens([AddedToken(known, normalized=False, special=True)])
