"""Which device, how many threads, and what size of batch: choices made of a few figures, without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from nearfar.core.errors import EngineUnavailable

if TYPE_CHECKING:
    from nearfar.core.settings import Device

# Read as this is imported, with torch: later threads find what set_num_threads was last told, by whichever engine.
CORES = torch.get_num_threads()
# How long a text of 256 tokens may take on one core before more of them share it. A guess.
_TEXT_S = 1.0
# Tokens a batch. A processor's caches hold little, and small batches keep all cores busy to the end of a request; a
# GPU wants to be filled, and the figures for it are guesses.
_PACKED_TOKENS = 512
_PADDED_TOKENS = {"cpu": 1024, "cuda": 16384, "mps": 4096}
# Padding that costs as much as a forward of its own would: about 5 ms of Python on every device. On GPUs a guess.
MOST_PADDING = {"cpu": 32, "cuda": 4096, "mps": 512}
# On a GPU every new shape costs: kernels are chosen, memory is allocated. Lengths are rounded up to a multiple of this.
LENGTH_STEP = {"cpu": 1, "cuda": 16, "mps": 16}


class Share(NamedTuple):
    """How the cores are put to use: ``parallel`` batches at once, on so many ``threads`` each."""

    parallel: int
    threads: int


def share(cores: int, text_s: float) -> Share:
    """Give every batch one core, or as many as it takes to bring a text's ``text_s`` seconds on one down to a second.

    Threads that each run a batch of their own never wait for each other. Several on one batch do, a hundred times a
    forward, and when another process has one of their cores it takes ten times as long.
    """
    threads = next((count for count in range(1, cores) if text_s <= _TEXT_S * count), cores)
    return Share(cores // threads, threads)


def find_device(asked: Device) -> str:
    """Name the torch device to use. Raises EngineUnavailable when it isn't there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if asked == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[asked]:
        raise EngineUnavailable(
            f"torch sees no {asked} device on this machine; it has: {', '.join(n for n in there if there[n])}"
        )
    return asked


def batch_tokens(device: str, *, packed: bool) -> int:
    """Give the size of a batch that suits the device."""
    return _PACKED_TOKENS if packed else _PADDED_TOKENS[device]
