"""What an engine is, and how one is chosen. Numbers only: ids in, float32 out; no text, no asyncio, no HTTP.

Engines enter through the entry-point group ``nearfar.engines``, ours and strangers' alike; each entry names an
``EngineKind``. Nothing heavy is imported to find out whether an engine can run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from nearfar.core.errors import EngineUnavailable
from nearfar.core.settings import Device, Dtype
from nearfar.core.types import Output
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row

if TYPE_CHECKING:
    from nearfar.core.types import FloatArray, Representation

    Answers: TypeAlias = FloatArray | list[Representation] | list[FloatArray]

GROUP = "nearfar.engines"


class EngineInfo(Struct, frozen=True, kw_only=True):
    """What an open engine is.

    ``batch_tokens`` is the size of a batch, in tokens, that suits its device: of the padded area, or where not
    ``padded``, of the tokens alone, since padding then costs nothing. ``most_padding`` is how much of it a batch may
    have: with more, two batches would cost less. ``parallel`` is how many batches it runs at once at its best.
    ``dtype_reason`` says why it computes in ``dtype``. ``labels`` is how many logits ``score`` gives a row, ``outputs``
    what ``represent`` gives. ``shares`` tells that a beginning which rows of a batch have in common costs its tokens
    once; ``plans`` that the first forward of a length costs more than the next.
    """

    name: str
    device: str
    dtype: str
    dim: int
    labels: int = 1
    outputs: tuple[Output, ...] = ("dense",)
    batch_tokens: int
    padded: bool = True
    most_padding: int = 32
    parallel: int = 1
    dtype_reason: str = "asked for"
    shares: bool = False
    plans: bool = False


class Engine(Protocol):
    """One open checkpoint. It is opened and closed on one thread.

    It may have a method ``memory`` as well, which gives the bytes that its library has in use in this process, by kind;
    any thread may call it.

    An engine whose info says ``parallel=1`` is only ever called on that thread, one call at a time; with more, as many
    threads call it at once. It may raise anything, and RowsTooLarge where only some rows have no answer; it never
    answers with a number it didn't compute.
    """

    info: EngineInfo

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Give (B, D) vectors; row i answers ``batch[i]``, of unit length where the Recipe says so."""
        ...

    def score(self, batch: Sequence[Row]) -> FloatArray:
        """Give raw logits, (B,) or of several labels (B, labels); the activation is not the engine's business."""
        ...

    def represent(self, batch: Sequence[Row]) -> list[Representation]:
        """Give all that the Recipe's outputs name of each row, from one forward; called for no other recipe."""
        ...

    def hidden(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Give each row's last hidden states (n, H), one for each of its ids, as pooling would see them.

        Called only where the Recipe pools. What it needs beyond ``embed`` is made when it is first called.
        """
        ...

    def close(self) -> None:
        """Let go of the weights."""
        ...


class RowsTooLarge(Exception):
    """Raised by an engine whose device lacks the memory for some rows of a batch, each by itself.

    ``results`` has all rows, whatever stands at those; ``indices`` are theirs.
    """

    def __init__(self, results: Answers, indices: Sequence[int]) -> None:
        super().__init__(f"{len(indices)} of {len(results)} rows need more memory than the device has")
        self.results = results
        self.indices = indices


class EngineOrder(Struct, frozen=True, kw_only=True):
    """All an engine is told: which files, how to run them, and where.

    ``probes`` are rows of real text, to try things out on and to compare precisions with; ``revision`` tells the files
    from others, None when only the files themselves can. ``cache`` is a folder to keep what is costly to make again.
    ``threads`` is how many cores to use, None for all.
    """

    folder: Path
    recipe: Recipe
    device: Device
    dtype: Dtype
    probes: Sequence[Row] = ()
    revision: str | None = None
    cache: Path | None = None
    threads: int | None = None


class EngineKind(Protocol):
    """What an entry point of the group names.

    ``rank`` orders the automatic choice: the highest one that can run here wins; one below 0 is never taken by itself.
    It may have ``shares`` as well, true where beginnings that rows have in common are computed once.
    """

    rank: int

    def obstacle(self, device: Device) -> str | None:
        """Say in one sentence, with the way out, why it can't run here; None when it can."""
        ...

    def open(self, order: EngineOrder) -> Engine:
        """Load the checkpoint. Raises SetupError for files or a machine it can't work with."""
        ...


class Choice(Struct, frozen=True, kw_only=True):
    """The engine to open and why it was chosen."""

    name: str
    kind: EngineKind
    reason: str


class _Unloadable:
    """Stands for a registered engine whose own code can't be imported; it keeps no other from running."""

    rank = -100

    def __init__(self, error: Exception) -> None:
        self._error = error

    def obstacle(self, device: Device) -> str:  # noqa: ARG002 — no device mends it
        return f"its package can't be imported ({type(self._error).__name__}: {self._error}); mend or uninstall it"

    def open(self, order: EngineOrder) -> Engine:
        raise EngineUnavailable(self.obstacle(order.device)) from self._error


def prefer_sharing(choices: list[Choice]) -> list[Choice]:
    """Put those first that compute once what many rows begin with alike, as the questions to a language model do.

    On a processor without bfloat16 that made Torch 1.2 to 2.5 times as fast as OpenVINO (benchmarks/README.md).
    """
    why = "what all documents are asked alike is computed once"
    sharing = [choice for choice in choices if getattr(choice.kind, "shares", False)]
    rest = [choice for choice in choices if choice not in sharing]
    if not sharing or not rest or choices[0] in sharing:
        return choices
    return [msgspec.structs.replace(choice, reason=f"{why}; {choice.reason}") for choice in sharing] + rest


def installed_engines() -> dict[str, EngineKind]:
    """Load every registered engine kind, by name."""
    return {point.name: _load(point) for point in entry_points(group=GROUP)}


def _load(point: EntryPoint) -> EngineKind:
    try:
        kind: EngineKind = point.load()
    except Exception as error:  # noqa: BLE001 — a stranger's module may raise anything while it is imported
        return _Unloadable(error)
    return kind


def choose_engines(name: str, device: Device) -> list[Choice]:
    """Give the engine called ``name``, or for ``auto`` all that can run here, the best first.

    A later one is to be taken only when those before it raise EngineUnavailable on opening: not every engine can run
    every architecture. Raises EngineUnavailable when the named one, or every one, can't run here.
    """
    kinds = installed_engines()
    if name != "auto":
        if name not in kinds:
            raise EngineUnavailable(f"engine {name!r} doesn't exist here; there are: {', '.join(sorted(kinds))}")
        if obstacle := kinds[name].obstacle(device):
            raise EngineUnavailable(f"engine {name!r}: {obstacle}")
        return [Choice(name=name, kind=kinds[name], reason="asked for")]
    obstacles: list[str] = []
    choices: list[Choice] = []
    for candidate, kind in sorted(kinds.items(), key=lambda item: -item[1].rank):
        obstacle = "only when asked for" if kind.rank < 0 else kind.obstacle(device)
        if obstacle is None:
            choices.append(Choice(name=candidate, kind=kind, reason="; ".join([*obstacles, "first that can run here"])))
        else:
            obstacles.append(f"not {candidate}: {obstacle}")
    if not choices:
        raise EngineUnavailable(f"no engine can run here ({'; '.join(obstacles) or 'none is installed'})")
    return choices
