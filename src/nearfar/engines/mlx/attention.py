"""Who sees whom, as masks that mlx's own attention takes; and that attention for BERT's kin.

A mask is True where a token (row) may look at another (column), and None where all may. Padding stands on the right.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn


def visible(mask: mx.array | None) -> mx.array | None:
    """Let everyone see everything but padding: (B, T) → (B, 1, 1, T)."""
    return None if mask is None else mask.astype(mx.bool_)[:, None, None, :]


def within(length: int, reach: int, mask: mx.array | None) -> mx.array | None:
    """Let everyone see ``reach`` tokens to either side, but no padding: (B or 1, 1, T, T).

    A place with nothing to see, among padding, sees itself: it would be NaN otherwise.
    """
    if length <= reach + 1:
        return visible(mask)
    places = mx.arange(length)
    distance = mx.abs(places[:, None] - places)
    near = (distance <= reach)[None, None]
    if mask is None:
        return near
    seen = near & mask.astype(mx.bool_)[:, None, None, :]
    return seen | (~seen.any(axis=-1, keepdims=True) & (distance == 0)[None, None])


def causal(length: int, reach: int) -> mx.array | str:
    """Let everyone see themselves and ``reach`` tokens before them: (1, 1, T, T), or mlx's word for no bound."""
    if length <= reach + 1:
        return "causal"
    places = mx.arange(length)
    back = places[:, None] - places
    return ((back >= 0) & (back <= reach))[None, None]


class FusedAttention(nn.Module):
    """BERT's self-attention by mlx's own kernel: the file's would hold (B, heads, T, T) numbers several times over."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.query, self.key, self.value = plain.query, plain.key, plain.value
        self._heads = plain.num_attention_heads
        self._scale = plain.attention_head_size**-0.5

    def __call__(self, hidden: mx.array, mask: mx.array | None = None, *_: object) -> tuple[mx.array]:
        """Give (B, T, H), in a tuple."""
        query, key, value = (self._part(of(hidden)) for of in (self.query, self.key, self.value))
        seen = mx.fast.scaled_dot_product_attention(query, key, value, scale=self._scale, mask=mask)
        return (seen.transpose(0, 2, 1, 3).reshape(hidden.shape),)

    def _part(self, values: mx.array) -> mx.array:
        rows, length, _ = values.shape
        return values.reshape(rows, length, self._heads, -1).transpose(0, 2, 1, 3)


class _Bare(FusedAttention):
    """The same, without the tuple, as bert.py wants it."""

    def __call__(self, hidden: mx.array, mask: mx.array | None = None, *_: object) -> mx.array:  # type: ignore[override]
        return super().__call__(hidden, mask)[0]


def fuse_attention(attention: nn.Module) -> None:
    """Put the kernel in place of a layer's own self-attention."""
    gives_tuple = type(attention).__module__.endswith("xlm_roberta")
    attention.self = (FusedAttention if gives_tuple else _Bare)(attention.self)
