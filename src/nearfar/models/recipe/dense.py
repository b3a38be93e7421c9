"""One vector a text: the pooling modes and the linear layers that follow them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
# In the order in which sentence-transformers joins the results of several modes.
POOLINGS: tuple[Pooling, ...] = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


class Dense(Struct, frozen=True, kw_only=True):
    """One linear layer: ``weight`` and ``bias`` in the safetensors ``file``, after ``linear.`` or not.

    ``activation`` is the name of a class of torch.nn.
    """

    file: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str = "Identity"
