"""What follows the transformer, on MLX, in files of its own: of hidden states a vector, one a token, a weight a token.

All in float32, whatever the transformer runs in. Every head takes hidden states (B, T, H), padded on the right where
the mask (B, T) is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from mlx import nn

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.mlx.arrays import load_arrays

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.models.recipe.dense import Dense, Pooling
    from nearfar.models.recipe.multi_vector import MultiVector
    from nearfar.models.recipe.recipe import Recipe

    Head = Callable[[mx.array, mx.array], mx.array]


def heads_of(recipe: Recipe) -> list[Head]:
    """Make the heads of the recipe's outputs that have files of their own, in their order."""
    heads: list[Head] = [Vectors(recipe)] if recipe.pooling else []
    if recipe.multi_vector:
        heads.append(TokenVectors(recipe.multi_vector))
    if recipe.sparse and recipe.sparse.head:
        heads.append(TokenWeights(recipe.sparse.head))
    return heads


_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "Identity": lambda values: values,
    "Tanh": mx.tanh,
    "ReLU": nn.relu,
    "GELU": nn.gelu,
    "SiLU": nn.silu,
    "Sigmoid": mx.sigmoid,
}


class Vectors:
    """Pooling, Dense layers and Normalize."""

    def __init__(self, recipe: Recipe) -> None:
        self._pooling = recipe.pooling
        self._normalize = recipe.normalize
        self._layers = [_load_dense(dense) for dense in recipe.dense]

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        """Turn hidden states (B, T, H), padded on the right where ``mask`` (B, T) is 0, into vectors (B, D)."""
        hidden = hidden.astype(mx.float32)
        vectors = mx.concatenate([_POOL[mode](hidden, mask) for mode in self._pooling], axis=1)
        for layer in self._layers:
            vectors = layer(vectors)
        return _unit(vectors) if self._normalize else vectors


class TokenVectors:
    """A projection of each token, and its length made 1."""

    def __init__(self, how: MultiVector) -> None:
        self._layers = [_load_dense(dense) for dense in how.dense]
        self._normalize = how.normalize

    def __call__(self, hidden: mx.array, _mask: mx.array) -> mx.array:
        """Give (B, T, M); which of the T count, the rows say."""
        vectors = hidden.astype(mx.float32)
        for layer in self._layers:
            vectors = layer(vectors)
        return _unit(vectors) if self._normalize else vectors


class TokenWeights:
    """BGE-M3: a weight for each of the text's own tokens."""

    def __init__(self, head: Dense) -> None:
        self._head = _load_dense(head)

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        """Give (B, T), 0 for padding."""
        return mx.maximum(self._head(hidden.astype(mx.float32))[..., 0], 0) * mask


def _unit(vectors: mx.array) -> mx.array:
    lengths = mx.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / mx.maximum(lengths, 1e-12)  # as torch.nn.functional.normalize


def _load_dense(dense: Dense) -> Callable[[mx.array], mx.array]:
    activation = _ACTIVATIONS.get(dense.activation)
    if activation is None:
        raise EngineUnavailable(f"{dense.file}: MLX has no activation {dense.activation} here; use --engine torch")
    file = dense.file
    named = {key.removeprefix("linear."): value for key, value in load_arrays(file).items()}
    found = {key: named[key].astype(mx.float32) for key in ("weight", "bias") if key in named}
    mx.eval(found)
    shapes = {"weight": (dense.out_features, dense.in_features)} | (
        {"bias": (dense.out_features,)} if dense.bias else {}
    )
    if {key: value.shape for key, value in found.items()} != shapes:
        raise CheckpointError(f"{file}: holds other weights than config.json says")

    def run(values: mx.array) -> mx.array:
        values = values @ found["weight"].T
        return activation(values + found["bias"] if dense.bias else values)

    return run


def first_token(hidden: mx.array, _mask: mx.array) -> mx.array:
    """Take the first token: (B, T, H) → (B, H)."""
    return hidden[:, 0]


def _max(hidden: mx.array, mask: mx.array) -> mx.array:
    return mx.where(mask[..., None] == 0, -mx.inf, hidden).max(axis=1)


def mean(hidden: mx.array, mask: mx.array) -> mx.array:
    """Average all tokens that aren't padding: (B, T, H) → (B, H)."""
    weights = mask[..., None].astype(mx.float32)
    return (hidden * weights).sum(axis=1) / weights.sum(axis=1)


def _mean_sqrt(hidden: mx.array, mask: mx.array) -> mx.array:
    weights = mask[..., None].astype(mx.float32)
    return (hidden * weights).sum(axis=1) / mx.sqrt(weights.sum(axis=1))


def _weighted_mean(hidden: mx.array, mask: mx.array) -> mx.array:
    weights = (mask * mx.cumsum(mask, axis=1))[..., None].astype(mx.float32)  # token i weighs i, counted from 1
    return (hidden * weights).sum(axis=1) / weights.sum(axis=1)


def last_token(hidden: mx.array, mask: mx.array) -> mx.array:
    """Take the last token that isn't padding: (B, T, H) → (B, H)."""
    return hidden[mx.arange(hidden.shape[0]), mask.sum(axis=1) - 1]


_POOL: dict[Pooling, Callable[[mx.array, mx.array], mx.array]] = {
    "cls": first_token,
    "max": _max,
    "mean": mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": last_token,
}
