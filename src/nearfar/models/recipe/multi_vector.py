"""One vector a token, compared by MaxSim (ColBERT): how they are computed from hidden states."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core.types import Role
from nearfar.models.recipe.dense import Dense


class QueryExpansion(Struct, frozen=True, kw_only=True):
    """Padding of short queries with a token, usually [MASK]; its vectors count like those of the query's own tokens."""

    token_id: int
    # Tokens of an expanded query, special tokens included.
    length: int
    # Whether longer queries are cut to ``length``.
    truncate: bool
    # Whether other tokens attend to the added ones.
    attended: bool


class MultiVector(Struct, frozen=True, kw_only=True):
    """How hidden states (T, H) become a text's vectors (n, M)."""

    # Applied to each token's hidden state.
    dense: tuple[Dense, ...]
    normalize: bool
    # Limits per role, special tokens included; None means the model's own.
    max_query_tokens: int | None = None
    max_document_tokens: int | None = None
    expansion: QueryExpansion | None = None
    # Tokens without a vector: these ids in texts of these roles, and the first ones of every text.
    skip_ids: frozenset[int] = frozenset()
    skip_roles: tuple[Role, ...] = ()
    skip_first: int = 0
    # Prompts that are one token each, such as ``[Q] ``.
    markers: tuple[str, ...] = ()
    # The attention window in tokens, if it is so small that some expansion tokens would attend to nothing.
    window: int | None = None

    def dim(self, hidden_size: int) -> int:
        """Return the length M of a vector."""
        return self.dense[-1].out_features if self.dense else hidden_size

    def max_tokens(self, role: Role) -> int | None:
        """Return the limit for texts of this role, special tokens included; None means the model's own."""
        if role != "query":
            return self.max_document_tokens
        if self.expansion is None:
            return self.max_query_tokens
        if self.expansion.truncate:
            return self.expansion.length
        return max(self.max_query_tokens, self.expansion.length) if self.max_query_tokens else None
