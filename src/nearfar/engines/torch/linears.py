"""Chooses the fastest kernel for linear layers on this CPU, by timing both.

Torch runs float32 linears on MKL. oneDNN with a prepacked weight is 2.3 times as fast on a Zen 5, but 0.75 times on a
Zen 3: so both are timed on one layer of the checkpoint.
"""

from __future__ import annotations

import timeit
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

ROWS = 256  # of the timed input; also the batch size that oneDNN packs the weight for
_REPEATS = 5
_MIN_SPEEDUP = 1.15  # for layers to be replaced
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}  # relative to the largest output


class LinearTimes(NamedTuple):
    """The time of one layer, in seconds on one core, for an input of ROWS rows."""

    plain: float
    prepacked: float | None  # None where it isn't supported or returns other numbers
    share: float  # of all multiplied weights that the timed one has

    @property
    def prefers_prepacked(self) -> bool:
        """Return whether prepacked layers are faster by enough."""
        return self.prepacked is not None and self.plain >= _MIN_SPEEDUP * self.prepacked

    @property
    def best(self) -> float:
        """Return the time of the kernel that will be used."""
        return self.prepacked if self.prefers_prepacked and self.prepacked else self.plain

    @property
    def text_s(self) -> float:
        """Estimate the time of a text of ROWS tokens, which is mostly multiplication."""
        return self.best / self.share


class PrepackedLinear(nn.Module):
    """A linear layer with its weight in oneDNN's layout. Uses private operators of torch."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)  # noqa: SLF001
        self._bias: Tensor | None = layer.bias  # may be None, whatever its type is

    def forward(self, x: Tensor) -> Tensor:
        """Multiply: (…, in) → (…, out)."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")  # noqa: SLF001
        return product


def time_linears(model: nn.Module, dtype: torch.dtype) -> LinearTimes:
    """Time the weight shape that makes up most of the work, in ``dtype``, on this thread's cores."""
    layers = (module for module in model.modules() if not isinstance(module, nn.Embedding))
    weights = [weight for layer in layers for weight in layer.parameters(recurse=False) if weight.ndim == 2]  # noqa: PLR2004
    work: Counter[torch.Size] = Counter()
    for weight in weights:
        work[weight.shape] += weight.numel()
    ((shape, _),) = work.most_common(1)
    chosen = next(weight for weight in weights if weight.shape == shape)
    with torch.inference_mode():
        sample = chosen.to(dtype)
        x = torch.linspace(-1, 1, ROWS * shape[1]).view(ROWS, -1).to(dtype)
        plain = _seconds(lambda: linear(x, sample))
        return LinearTimes(plain, _time_prepacked(x, sample), chosen.numel() / work.total())


def _time_prepacked(x: Tensor, weight: Tensor) -> float | None:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    expected = linear(x, weight).float()
    try:
        prepacked = PrepackedLinear(layer)
        product = prepacked(x).float()
    except (AttributeError, RuntimeError):  # this build of torch lacks the operators, or they lack the dtype
        return None
    if (product - expected).abs().max() > _TOLERANCE[x.dtype] * expected.abs().max():
        return None
    return _seconds(lambda: prepacked(x))


def _seconds(call: Callable[[], object]) -> float:
    """Return the shortest time of a few calls: other load only adds to it."""
    call()
    return min(timeit.repeat(call, repeat=_REPEATS, number=1))


def prepack(model: nn.Module) -> None:
    """Replace the model's linear layers by prepacked ones."""
    for module in [*model.modules()]:
        for name, child in [*module.named_children()]:
            if type(child) is nn.Linear:  # not a subclass, which may do more
                setattr(module, name, PrepackedLinear(child))
