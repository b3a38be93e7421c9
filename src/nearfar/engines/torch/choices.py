"""Device, threads, batch size and precision: chosen from a few figures, without running anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

from nearfar.core.errors import EngineUnavailable
from nearfar.core.settings import Device
from nearfar.engines.common.precision import PrecisionLoss

TorchDtype = Literal["float32", "float16", "bfloat16"]

# Read at import: later calls return what set_num_threads was last called with, by any engine.
CORES = torch.get_num_threads()
# The longest that 256 tokens may take on one core before a batch gets more of them. A guess.
_MAX_TEXT_S = 1.0
# Tokens per batch. A CPU's caches are small, and small batches keep all cores busy to the end of a request; a GPU needs
# large ones; their sizes are guesses.
PACKED_TOKENS = 512
PADDED_TOKENS = {"cpu": 1024, "cuda": 16384, "mps": 4096}
# Padding that costs as much as another forward: about 5 ms of Python on every device. On GPUs a guess.
MAX_PADDING = {"cpu": 32, "cuda": 4096, "mps": 512}
# On a GPU every new shape costs kernel selection and allocations: lengths are rounded up to a multiple of this.
LENGTH_STEP = {"cpu": 1, "cuda": 16, "mps": 16}
_MIN_SPEEDUP = 1.5  # over float32, for a lower precision to be used on a CPU
# A GPU is at least twice as fast in these; float16 first, which has three bits more of precision.
_GPU_DTYPES: dict[str, tuple[TorchDtype, ...]] = {"cuda": ("float16", "bfloat16"), "mps": ("float16",)}


class Parallelism(NamedTuple):
    """How cores are used: ``batches`` at once, on ``threads`` cores each."""

    batches: int
    threads: int


def split_cores(cores: int, text_s: float) -> Parallelism:
    """Assign each batch one core, or as many as bring ``text_s``, the time of a text on one core, down to a second.

    Threads with a batch each never wait for each other. Several threads on one batch do, a hundred times per forward:
    when another process takes one of their cores, the forward takes ten times as long.
    """
    threads = next((count for count in range(1, cores) if text_s <= _MAX_TEXT_S * count), cores)
    return Parallelism(cores // threads, threads)


def find_device(requested: Device) -> str:
    """Return the name of the torch device to use. Raises EngineUnavailable if it doesn't exist."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if requested == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[requested]:
        names = ", ".join(name for name in available if available[name])
        raise EngineUnavailable(
            f"torch sees no {requested} device on this machine; it has: {names}; leave the device to auto"
        )
    return requested


class DtypeChoice(NamedTuple):
    """A precision and why it was chosen, in one phrase."""

    dtype: TorchDtype
    reason: str


def choose_dtype(
    device: str,
    measure_speedup: Callable[[], float],
    measure_loss: Callable[[TorchDtype], PrecisionLoss],
    *,
    has_probes: bool,
) -> DtypeChoice:
    """Return the first precision that is faster and loses little on the probes, else float32.

    ``measure_speedup`` returns bfloat16's speed on this CPU relative to float32, ``measure_loss`` a precision's loss.
    """
    if not has_probes:
        return DtypeChoice("float32", "there are no texts to compare another precision on")
    advantage = "the device's usual precision"
    candidates = _GPU_DTYPES.get(device, ())
    if device == "cpu":
        speedup = measure_speedup()
        advantage = f"{speedup:.1f} times as fast as float32 here"
        if speedup < _MIN_SPEEDUP:
            return DtypeChoice("float32", f"bfloat16 is {advantage}, less than {_MIN_SPEEDUP}")
        candidates = ("bfloat16",)
    rejected: list[str] = []
    for dtype in candidates:
        loss = measure_loss(dtype)
        if loss.is_small:
            return DtypeChoice(dtype, "; ".join([*rejected, f"{advantage}; {loss}"]))
        rejected.append(f"{dtype} loses too much: {loss}")
    return DtypeChoice("float32", "; ".join(rejected))
