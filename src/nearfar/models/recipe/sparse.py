"""Sparse embeddings over the vocabulary: SPLADE and BGE-M3's lexical weights."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from nearfar.models.recipe.dense import Dense


class Sparse(Struct, frozen=True, kw_only=True):
    """How a text's sparse vector is computed: (size,), no value below 0.

    ``splade`` takes log(1 + relu(logits)) of the masked-language-model head, pooled over the tokens; it may weigh any
    token of the vocabulary. ``lexical`` (BGE-M3) applies a linear layer to each token and keeps the largest value a
    token id; it weighs the text's own tokens alone.
    """

    method: Literal["splade", "lexical"]
    # The vocabulary's size.
    size: int
    # For ``splade``: pooling over tokens, and whether the logarithm is applied twice (log1p_relu).
    pooling: Literal["max", "sum"] = "max"
    log_twice: bool = False
    # For ``lexical``: the linear layer (H → 1), and the tokens that have no weight.
    head: Dense | None = None
    skip_ids: frozenset[int] = frozenset()
