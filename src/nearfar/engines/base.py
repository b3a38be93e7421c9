"""The engine contract: token ids in, float32 out. No text, no asyncio, no HTTP.

An engine enters through the entry-point group ``nearfar.engines``; each entry names an ``EngineKind``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from msgspec import Struct

from nearfar.core.settings import Device, Dtype
from nearfar.core.types import Batching, FloatArray, Output, Representation
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row

EngineOutput: TypeAlias = "FloatArray | list[Representation] | list[FloatArray]"


class EngineInfo(Struct, frozen=True, kw_only=True):
    """What a loaded engine reports about itself."""

    name: str
    device: str
    dtype: str
    dtype_reason: str = "requested"  # why it computes in ``dtype``
    dim: int  # of a dense vector; 0 where the model has none
    labels: int = 1  # logits per row that ``score`` returns
    outputs: tuple[Output, ...] = ("dense",)  # what ``represent`` returns
    batching: Batching | None = None  # which rows may run in one batch; None: measured after opening
    batch_tokens: int  # batch size that suits the device: the padded area, or without padding the tokens alone
    offline_tokens: int = 0  # the same for work that no client waits for; 0: batch_tokens
    padded: bool = True  # False where rows are packed end to end, so that padding costs nothing
    max_padding: int = 32  # padding tokens in a batch above which two batches would cost less
    max_concurrent_batches: int = 1  # batches that are run at once for the best throughput
    shares_prefixes: bool = False  # ids that rows of a batch begin with in common are computed once
    # How long forwards of common lengths may run before a model is ready: they compile what each length needs, and show
    # how fast the model is. 0: none run.
    warm_up_s: float = 0.0


class Engine(Protocol):
    """One loaded checkpoint. It is opened and closed on one thread.

    It may also have a method ``memory``, which returns the bytes that its library uses in this process, by kind; any
    thread may call it.

    With ``max_concurrent_batches=1`` an engine is only called on the thread that opened it, one call at a time; with
    more, as many threads call it at once. It may raise any exception, and RowsTooLarge where only some rows have no
    result; it never returns a number it didn't compute.
    """

    info: EngineInfo

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Return (B, D) vectors; row i answers ``batch[i]``, with unit length where the Recipe normalizes."""
        ...

    def score(self, batch: Sequence[Row]) -> FloatArray:
        """Return raw logits, (B,), or (B, labels) for several labels; the caller applies the activation."""
        ...

    def represent(self, batch: Sequence[Row]) -> list[Representation]:
        """Return each row's outputs as the Recipe names them, from one forward. Not called for other recipes."""
        ...

    def hidden_states(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Return each row's last hidden states (n, H), one per id, as pooling would see them.

        Only called where the Recipe pools. Loads what it needs beyond ``embed`` at the first call.
        """
        ...

    def close(self) -> None:
        """Free the weights."""
        ...


class RowsTooLarge(Exception):
    """Raised by an engine when its device has too little memory for some rows of a batch, each run alone.

    ``results`` has an entry for all rows; those at ``indices`` are to be ignored.
    """

    def __init__(self, results: EngineOutput, indices: Sequence[int]) -> None:
        super().__init__(f"{len(indices)} of {len(results)} rows need more memory than the device has")
        self.results = results
        self.indices = indices


class OpenRequest(Struct, frozen=True, kw_only=True):
    """Everything an engine needs to load a checkpoint."""

    folder: Path
    recipe: Recipe
    device: Device
    dtype: Dtype
    probes: Sequence[Row] = ()  # rows of real text, for comparing precisions and code paths
    revision: str | None = None  # identifies the files; None where only their sizes and dates can
    cache_dir: Path | None = None  # for converted models; None: convert at every start
    threads: int | None = None  # CPU threads; None: one per usable core
    single_row_models: bool = True  # may compile models that run a row faster while nothing else runs


class EngineKind(Protocol):
    """What an entry point of the group names: checks whether an engine can run here, and opens it.

    ``priority`` orders the automatic choice: the highest one that can run here wins; below 0 it is only used when
    requested. It may also have ``shares_prefixes``, True where ids that rows begin with in common are computed once.
    """

    priority: int

    def unavailable_reason(self, device: Device) -> str | None:
        """Return in one sentence why it can't run here and what to do about it; None when it can.

        Must not import anything heavy: it is called for every installed engine at every start.
        """
        ...

    def open(self, request: OpenRequest) -> Engine:
        """Load the checkpoint. Raises a SetupError for files or a machine it doesn't support."""
        ...
