"""Which kernel multiplies by a weight fastest here, found out by trying.

Torch hands float32 linears on a processor to MKL. oneDNN with the weight laid out beforehand is 2.3 times as fast on a
Zen 5, and 0.75 times on a Zen 3: so both are timed on one layer of the checkpoint.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 256  # of the input that is timed; also the hint for the layout
_REPEATS = 5
_MATRIX = 2  # axes
_WORTH_SWAPPING = 1.15  # how much faster it has to be
_CLOSE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}  # of the largest number that comes out


class LinearTimes(NamedTuple):
    """Seconds that one core takes for ROWS rows; ``prepacked`` is None where it can't be done or gives other numbers.

    ``part`` is the timed weight's part of all weights that are multiplied by.
    """

    plain: float
    prepacked: float | None
    part: float

    @property
    def swap(self) -> bool:
        """Tell whether prepacked is faster by enough to be worth it."""
        return self.prepacked is not None and self.plain >= _WORTH_SWAPPING * self.prepacked

    @property
    def best(self) -> float:
        """Give the time of the kernel that will be used."""
        return self.prepacked if self.swap and self.prepacked else self.plain

    @property
    def text_s(self) -> float:
        """Estimate what a text of ROWS tokens takes: the multiplications are by far most of it."""
        return self.best / self.part


class PrepackedLinear(nn.Module):
    """A linear layer whose weight oneDNN has laid out beforehand. The operators are torch's own, but private."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)  # noqa: SLF001
        self._bias: Tensor | None = layer.bias  # type says never None, and it often is

    def forward(self, x: Tensor) -> Tensor:
        """Multiply: (…, in) → (…, out)."""
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")  # noqa: SLF001
        return found


def time_linears(model: nn.Module, dtype: torch.dtype) -> LinearTimes:
    """Time the shape of weight that makes up most of the work, as if it were of ``dtype``, on this thread's cores."""
    layers = (module for module in model.modules() if not isinstance(module, nn.Embedding))
    weights = [weight for layer in layers for weight in layer.parameters(recurse=False) if weight.ndim == _MATRIX]
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
        found = prepacked(x).float()
    except (AttributeError, RuntimeError):  # this build of torch hasn't got them, or they don't take the dtype
        return None
    if (found - expected).abs().max() > _CLOSE[x.dtype] * expected.abs().max():
        return None
    return _seconds(lambda: prepacked(x))


def _seconds(call: Callable[[], object]) -> float:
    """Give the shortest of a few: whatever else the machine does only makes it longer."""
    call()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def prepack(model: nn.Module) -> None:
    """Put prepacked layers in place of the model's linear ones."""
    for module in [*model.modules()]:
        for name, child in [*module.named_children()]:
            if type(child) is nn.Linear:  # a class made from it may do more
                setattr(module, name, PrepackedLinear(child))
