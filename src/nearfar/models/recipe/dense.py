"""One vector a text: pooling modes, and the layers that follow."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

# In the order in which sentence-transformers concatenates several modes.
Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

# Classes of torch.nn that work on each number, or each vector, without arguments; a test derives the list from torch.
# PReLU has a learned slope.
ACTIVATIONS = {
    *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU"),
    *("LogSigmoid", "LogSoftmax", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softmax"),
    *("Softmin", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink"),
}
_LEARNED = "PReLU"


class Dense(Struct, frozen=True, kw_only=True, tag=True):
    """One linear layer with an activation."""

    # The safetensors file with ``linear.weight`` and ``linear.bias``.
    file: Path
    # Whether its tensors have that prefix; BGE-M3's don't.
    has_prefix: bool = True
    in_features: int
    out_features: int
    bias: bool
    # The name of a class in torch.nn.
    activation: str = "Identity"
    # Whether the input is added to the output, through one more linear layer if their sizes differ.
    residual: bool = False

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the file's tensors by their names."""
        shapes: dict[str, tuple[int, ...]] = {"linear.weight": (self.out_features, self.in_features)}
        if self.bias:
            shapes["linear.bias"] = (self.out_features,)
        if self.residual and self.in_features != self.out_features:
            shapes["residual.weight"] = (self.out_features, self.in_features)
        if self.activation == _LEARNED:
            shapes["activation_function.weight"] = (1,)
        return shapes


class LayerNorm(Struct, frozen=True, kw_only=True, tag=True):
    """Scales each vector to mean 0 and variance 1, and applies learned weights."""

    # The safetensors file with ``norm.weight`` and ``norm.bias``.
    file: Path
    size: int

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the file's tensors by their names."""
        return {"norm.weight": (self.size,), "norm.bias": (self.size,)}


class Normalize(Struct, frozen=True, tag=True):
    """Scales each vector to unit length."""


Layer: TypeAlias = Dense | LayerNorm | Normalize


def width_after(layers: tuple[Layer, ...], width: int) -> int:
    """Return the length of vectors of ``width`` after these layers."""
    return next((layer.out_features for layer in reversed(layers) if isinstance(layer, Dense)), width)
