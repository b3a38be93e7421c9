"""Attention masks, fused attention for BERT's family, and the cache for a prefix that rows share.

A mask is True where a token (row) may attend to another (column), and None where all may. Padding is on the right.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn


def full_mask(mask: mx.array | None) -> mx.array | None:
    """Allow everything but padding: (B, T) → (B, 1, 1, T)."""
    return None if mask is None else mask.astype(mx.bool_)[:, None, None, :]


def window_mask(length: int, reach: int, mask: mx.array | None) -> mx.array | None:
    """Allow ``reach`` tokens to either side, without padding: (B or 1, 1, T, T).

    A padding position that could attend to nothing attends to itself; it would be NaN otherwise.
    """
    if length <= reach + 1:
        return full_mask(mask)
    positions = mx.arange(length)
    distance = mx.abs(positions[:, None] - positions)
    near = (distance <= reach)[None, None]
    if mask is None:
        return near
    allowed = near & mask.astype(mx.bool_)[:, None, None, :]
    return allowed | (~allowed.any(axis=-1, keepdims=True) & (distance == 0)[None, None])


def causal_mask(length: int, reach: int) -> mx.array | str:
    """Allow each token itself and ``reach`` tokens before it: (1, 1, T, T), or mlx's name for an unlimited reach."""
    if length <= reach + 1:
        return "causal"
    positions = mx.arange(length)
    back = positions[:, None] - positions
    return ((back >= 0) & (back <= reach))[None, None]


class PrefixCache:
    """One layer's keys and values of a prefix that all rows share, passed where mlx-lm's layers take a KV cache.

    The first call stores its own; later ones get the stored ones before each of their rows'.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._stored: tuple[mx.array, mx.array] | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Return keys and values (n, heads, offset + L, d) to attend to, for new ones (n, heads, L, d)."""
        if self._stored is None:
            self._stored = keys, values
            self.offset = keys.shape[2]
            return keys, values
        prefixes = (mx.broadcast_to(of, (keys.shape[0], *of.shape[1:])) for of in self._stored)
        whole = [mx.concatenate([*pair], axis=2) for pair in zip(prefixes, (keys, values), strict=True)]
        return whole[0], whole[1]


class FusedAttention(nn.Module):
    """BERT's self-attention by mlx's own kernel; mlx-embeddings' would store (B, heads, T, T) several times."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.query, self.key, self.value = plain.query, plain.key, plain.value
        self._heads = plain.num_attention_heads
        self._scale = plain.attention_head_size**-0.5
        self._returns_tuple = type(plain).__module__.endswith("xlm_roberta")

    def __call__(self, hidden: mx.array, mask: mx.array | None = None, *_: object) -> mx.array | tuple[mx.array]:
        """Return (B, T, H), in a tuple where the model file expects one."""
        query, key, value = (self._split_heads(of(hidden)) for of in (self.query, self.key, self.value))
        attended = mx.fast.scaled_dot_product_attention(query, key, value, scale=self._scale, mask=mask)
        joined = attended.transpose(0, 2, 1, 3).reshape(hidden.shape)
        return (joined,) if self._returns_tuple else joined

    def _split_heads(self, values: mx.array) -> mx.array:
        rows, length, _ = values.shape
        return values.reshape(rows, length, self._heads, -1).transpose(0, 2, 1, 3)
