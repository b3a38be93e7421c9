"""A service to install, and what a service manager can do with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Protocol

from msgspec import Meta, Struct

from nearfar.core.errors import ServiceManagerError

MARK = "Written by: nearfar service install"  # a unit without this line is never overwritten or removed
OPEN_FILES = 65_536  # each connection is one, and systems start at 256 or 1,024
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?")  # as useradd allows, and names of domains
_EXIT_S = 15.0  # for the process to exit after its drain: at most 5 s, or more on a busy machine


class ServiceSpec(Struct, frozen=True, kw_only=True):
    """A service, independent of the service manager."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z")]
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

    def __post_init__(self) -> None:
        """Raise ServiceManagerError for what a unit can't have as it is, such as a path with a line break."""
        for option, value in {"--run-as": self.run_as, "--config": self.config, "its Python": self.python}.items():
            _refuse_unquotable(option, str(value or ""))
        for folder in (self.environment, self.root, self.home, self.user_config):
            _refuse_unquotable("the folder of the service's files", str(folder))
        if self.run_as is not None and not _USER.fullmatch(self.run_as):
            raise ServiceManagerError(f"--run-as {self.run_as!r}: is no name of a user")
        if set("*?[\\") & set(str(self.environment)):
            raise ServiceManagerError(f"{self.environment}: systemd would take it as a pattern; use another folder")
        if set("\\'\"$") & set(str(self.python)):
            raise ServiceManagerError(
                f"{self.python}: systemd can't run a program with such a path; use another folder"
            )

    @property
    def command(self) -> list[str]:
        """Return the command line. The interpreter's path is absolute: services don't have the user's PATH."""
        config = ["--config", str(self.config)] if self.config else []
        return [str(self.python), "-m", "nearfar", "serve", *config, "--log-format", "json"]

    @property
    def stop_s(self) -> int:
        """Return the seconds after which the service manager may kill the process."""
        return round(self.drain_timeout_s + _EXIT_S)


def _refuse_unquotable(option: str, value: str) -> None:
    """Raise ServiceManagerError for control characters, and white space around or a backslash at the end of a name."""
    ends_badly = any(part != part.strip() or part.endswith("\\") for part in value.split("/"))
    if not value.isprintable() or ends_badly:
        raise ServiceManagerError(
            f"{option}: {value!r} has a control character, or white space around or a backslash at the end of a name, "
            "which a unit can't have; rename it"
        )


class Commands(Struct, frozen=True, kw_only=True):
    """The command lines that control a service, each a list of words."""

    before_start: list[list[str]] = []  # they may fail
    start: list[list[str]]  # start a new or changed unit, now and at every boot or login
    stop: list[list[str]]  # stop the service for good; its unit still exists
    after_removal: list[list[str]] = []  # once the unit has been removed
    restart: list[str]
    status: list[str]  # show the state of the service


class ServiceManager(Protocol):
    """A service manager. Its modules implement this."""

    def unit_file(self, spec: ServiceSpec) -> Path:
        """Return the path of the unit."""
        ...

    def render(self, spec: ServiceSpec) -> str:
        """Return the text of the unit."""
        ...

    def commands(self, spec: ServiceSpec) -> Commands:
        """Return the commands that control the service."""
        ...

    def logs(self, spec: ServiceSpec, lines: int, *, follow: bool) -> list[str]:
        """Return the command that shows the log of the service."""
        ...
