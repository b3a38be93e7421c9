"""Choose an engine among those installed. Imports nothing heavy to find out whether an engine can run here."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from nearfar.core.errors import EngineUnavailable, SetupError
from nearfar.core.plugins import load_plugins
from nearfar.core.settings import Device
from nearfar.engines.base import Engine, EngineKind, OpenRequest


class EngineChoice(Struct, frozen=True, kw_only=True):
    """An engine to open and why it was chosen."""

    name: str
    kind: EngineKind
    reason: str


class _BrokenPlugin:
    """Stands for a registered engine that fails to import, so that the other engines still work."""

    priority = -100

    def __init__(self, error: Exception) -> None:
        self._error = error

    def unavailable_reason(self, device: Device) -> str:  # noqa: ARG002 — the same on every device
        return f"its package can't be imported ({type(self._error).__name__}: {self._error}); fix or uninstall it"

    def open(self, request: OpenRequest) -> Engine:
        raise EngineUnavailable(self.unavailable_reason(request.device)) from self._error


def installed_engines() -> dict[str, EngineKind]:
    """Load every registered engine kind, by name. One that fails to import is logged and can't be opened."""
    kinds, failed = load_plugins("nearfar.engines")
    return {**kinds, **{name: _BrokenPlugin(error) for name, error in failed.items()}}


def choose_engines(name: str, device: Device) -> list[EngineChoice]:
    """Return the engine called ``name``, or for ``auto`` all that can run here, best first.

    Not every engine supports every architecture: callers try the next one when opening raises EngineUnavailable. Raises
    EngineUnavailable when the requested one, or every one, can't run here.
    """
    kinds = installed_engines()
    if name != "auto":
        if name not in kinds:
            raise EngineUnavailable(f"there is no engine {name!r}; there are {', '.join(sorted(kinds))}, and auto")
        if reason := kinds[name].unavailable_reason(device):
            raise EngineUnavailable(f"engine {name!r}: {reason}")
        return [EngineChoice(name=name, kind=kinds[name], reason="requested")]
    skipped: list[str] = []
    choices: list[EngineChoice] = []
    for candidate, kind in sorted(kinds.items(), key=lambda item: -item[1].priority):
        if reason := f"only with --engine {candidate}" if kind.priority < 0 else kind.unavailable_reason(device):
            skipped.append(f"not {candidate}: {reason}")
        else:
            why = "; ".join([*skipped, "first that can run here"])
            choices.append(EngineChoice(name=candidate, kind=kind, reason=why))
    if not choices:
        raise EngineUnavailable(f"no engine can run here ({'; '.join(skipped) or 'none is installed'})")
    return choices


def open_with(choice: EngineChoice, request: OpenRequest) -> Engine:
    """Open the checkpoint with a chosen engine.

    Raises a SetupError: EngineUnavailable in place of any error that a library raises.
    """
    try:
        return choice.kind.open(request)
    except SetupError:
        raise
    except Exception as error:
        raise unavailable(choice, request, error, "can't open it") from error


def unavailable(choice: EngineChoice, request: OpenRequest, error: BaseException, failure: str) -> EngineUnavailable:
    """Return what to raise where an engine's library raises ``error``: one sentence with a way out."""
    first_line = str(error).strip().partition("\n")[0][:200]
    others = sorted(name for name, kind in installed_engines().items() if name != choice.name and kind.priority >= 0)
    way_out = f"use --engine {' or '.join(others)}, or another model" if others else "serve another model"
    cause = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    return EngineUnavailable(f"{request.folder}: the engine {choice.name} {failure} ({cause}); {way_out}")


def prefer_prefix_sharing(choices: list[EngineChoice]) -> list[EngineChoice]:
    """Move engines to the front that compute a common prefix once, for LLM rerankers, where all rows have one.

    On a CPU without bfloat16 this made Torch 1.2 to 2.5 times as fast as OpenVINO (docs/performance.md).
    """
    sharing = [choice for choice in choices if getattr(choice.kind, "shares_prefixes", False)]
    rest = [choice for choice in choices if choice not in sharing]
    if not sharing or not rest or choices[0] in sharing:
        return choices
    why = "computes the prefix that all documents share once"
    return [msgspec.structs.replace(choice, reason=f"{why}; {choice.reason}") for choice in sharing] + rest
