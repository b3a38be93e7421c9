"""What a service is to be, in nobody's format yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "Written by: nearfar service install"  # by which we know a file as ours
OPEN_FILES = 65_536  # each connection is one, and systems start at 256 or 1,024
_ENDING_S = 15.0  # for the process to end after its drain; it takes 5 s at the most, and a loaded machine is slow


class UnitOrder(Struct, frozen=True, kw_only=True):
    """A service: ``config`` is served by ``python``, and ``environment`` holds what must not be seen in the unit.

    A service of the whole ``system`` runs as ``run_as``, or where that is None as a user that is made for it.
    ``root``, ``home`` and ``user_config`` are where files of the system and of the user, whose number is ``uid``, go.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    python: Path
    config: Path | None
    environment: Path
    drain_timeout_s: float
    system: bool = False
    run_as: str | None = None
    uid: int
    root: Path
    home: Path
    user_config: Path

    @property
    def command(self) -> list[str]:
        """Give the command line; the interpreter's path is whole, as a service has no PATH of its user's."""
        config = ["--config", str(self.config)] if self.config else []
        return [str(self.python), "-m", "nearfar", "serve", *config, "--log-format", "json"]

    @property
    def stop_s(self) -> int:
        """Give the seconds after which whoever asked the service to stop may end it by force."""
        return round(self.drain_timeout_s + _ENDING_S)


class Way(Protocol):
    """How one service manager is written to and told. Its modules are these; every command is a list of words."""

    def unit_file(self, order: UnitOrder) -> Path:
        """Say where the unit goes."""
        ...

    def render(self, order: UnitOrder) -> str:
        """Write the unit."""
        ...

    def start(self, order: UnitOrder) -> Sequence[Sequence[str]]:
        """Give what makes a new or changed unit run, now and at every boot or login."""
        ...

    def clear(self, order: UnitOrder) -> Sequence[Sequence[str]]:
        """Give what may be in the way of that and may fail."""
        ...

    def stop(self, order: UnitOrder) -> Sequence[Sequence[str]]:
        """Give what ends the service for good, while its unit is still there."""
        ...

    def forget(self, order: UnitOrder) -> Sequence[Sequence[str]]:
        """Give what is to be said once the unit's file is gone."""
        ...

    def status(self, order: UnitOrder) -> Sequence[str]:
        """Give what shows how the service is."""
        ...

    def logs(self, order: UnitOrder, lines: int, *, follow: bool) -> Sequence[str]:
        """Give what shows the service's log."""
        ...
