"""A service to install, and what a service manager can do with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "Written by: nearfar service install"  # a unit without this line is never overwritten or removed
OPEN_FILES = 65_536  # each connection is one, and systems start at 256 or 1,024
_EXIT_S = 15.0  # for the process to exit after its drain: at most 5 s, or more on a busy machine


class ServiceSpec(Struct, frozen=True, kw_only=True):
    """A service, independent of the service manager."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    python: Path  # the interpreter that runs nearfar
    config: Path | None  # TOML file of settings
    environment: Path  # file of variables that only its owner can read; secrets never go into the unit
    drain_timeout_s: float
    system: bool = False  # for the whole machine, instead of for one user
    run_as: str | None = None  # user of a system service; None: systemd creates one
    uid: int  # of the current user
    root: Path  # what system files are relative to
    home: Path
    user_config: Path

    @property
    def command(self) -> list[str]:
        """Return the command line. The interpreter's path is absolute: services don't have the user's PATH."""
        config = ["--config", str(self.config)] if self.config else []
        return [str(self.python), "-m", "nearfar", "serve", *config, "--log-format", "json"]

    @property
    def stop_s(self) -> int:
        """Return the seconds after which the service manager may kill the process."""
        return round(self.drain_timeout_s + _EXIT_S)


class ServiceManager(Protocol):
    """A service manager. Its modules implement this; every command is a list of words."""

    def unit_file(self, spec: ServiceSpec) -> Path:
        """Return the path of the unit."""
        ...

    def render(self, spec: ServiceSpec) -> str:
        """Return the text of the unit."""
        ...

    def before_start(self, spec: ServiceSpec) -> Sequence[Sequence[str]]:
        """Return commands to run before start; they may fail."""
        ...

    def start(self, spec: ServiceSpec) -> Sequence[Sequence[str]]:
        """Return commands that start a new or changed unit, now and at every boot or login."""
        ...

    def stop(self, spec: ServiceSpec) -> Sequence[Sequence[str]]:
        """Return commands that stop the service for good; its unit still exists."""
        ...

    def after_removal(self, spec: ServiceSpec) -> Sequence[Sequence[str]]:
        """Return commands to run once the unit has been removed."""
        ...

    def status(self, spec: ServiceSpec) -> Sequence[str]:
        """Return the command that shows the state of the service."""
        ...

    def logs(self, spec: ServiceSpec, lines: int, *, follow: bool) -> Sequence[str]:
        """Return the command that shows the log of the service."""
        ...
