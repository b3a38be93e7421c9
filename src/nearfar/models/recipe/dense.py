"""One vector a text: pooling modes, and the linear layers that follow."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from msgspec import Struct

# In the order in which sentence-transformers concatenates several modes.
Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


class Dense(Struct, frozen=True, kw_only=True):
    """One linear layer with an activation."""

    # The safetensors file with ``weight`` and ``bias``, or ``linear.weight`` and ``linear.bias``.
    file: Path
    in_features: int
    out_features: int
    bias: bool
    # The name of a class in torch.nn.
    activation: str = "Identity"
