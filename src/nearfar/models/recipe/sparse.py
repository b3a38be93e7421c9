"""Sparse weights of the vocabulary's tokens: SPLADE and BGE-M3."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from nearfar.models.recipe.dense import Dense


class Sparse(Struct, frozen=True, kw_only=True):
    """How a text's weights come about: (size,) of them, none below 0.

    ``of`` the whole vocabulary: at each token a language model's head says how much every other is meant, and log(1 +
    relu) of that is pooled over the text, taken ``twice`` by some (SPLADE). Of the text's own ``tokens``: a linear
    ``head`` weighs each, those of ``skip_ids`` have none, and a token that comes again counts by its highest (BGE-M3).
    """

    of: Literal["vocabulary", "tokens"]
    size: int
    pooling: Literal["max", "sum"] = "max"
    twice: bool = False
    head: Dense | None = None
    skip_ids: frozenset[int] = frozenset()
