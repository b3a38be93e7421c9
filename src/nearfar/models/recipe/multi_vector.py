"""A vector for each token of a text, to be compared by MaxSim: what makes them of hidden states (ColBERT)."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core.types import Role
from nearfar.models.recipe.dense import Dense


class Expansion(Struct, frozen=True, kw_only=True):
    """Tokens put after a query until it has ``length``: their vectors count like those of its own.

    No token looks at them unless ``attended``. ``exact``: a longer query is cut to that length.
    """

    token_id: int
    length: int
    exact: bool
    attended: bool


class MultiVector(Struct, frozen=True, kw_only=True):
    """How hidden states become a text's vectors, (T, H) → (n, M).

    ``dense`` are linear layers on each token. Tokens before ``first`` have no vector, nor have those of ``skip_ids`` in
    texts of the roles ``skip_roles``. ``query_tokens`` and ``document_tokens`` are limits, special tokens included.
    ``markers`` are prompts that are one token each. ``window`` is the family's, in tokens, where some of those that are
    put after a short query would see nothing at all.
    """

    dense: tuple[Dense, ...]
    normalize: bool
    query_tokens: int | None = None
    document_tokens: int | None = None
    expansion: Expansion | None = None
    skip_ids: frozenset[int] = frozenset()
    skip_roles: tuple[Role, ...] = ()
    markers: tuple[str, ...] = ()
    first: int = 0
    window: int | None = None

    def width(self, hidden_size: int) -> int:
        """Give the length M of a vector."""
        return self.dense[-1].out_features if self.dense else hidden_size

    def limit(self, role: Role) -> int | None:
        """Give the limit of a text of this role."""
        if role == "query" and self.expansion:
            longest = max(self.query_tokens or 0, self.expansion.length)
            return self.expansion.length if self.expansion.exact else longest if self.query_tokens else None
        return self.query_tokens if role == "query" else self.document_tokens
