"""Units and commands of systemd. Tested with version 252; every line works since 245."""

from __future__ import annotations

from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from nearfar.cli.units.spec import MARK, OPEN_FILES, Commands

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.cli.units.spec import ServiceSpec


def unit_file(spec: ServiceSpec) -> Path:
    """Return ``/etc/systemd/system/NAME.service``, or its counterpart in the user's folder."""
    folder = spec.root / "etc/systemd/system" if spec.system else spec.user_config / "systemd/user"
    return folder / f"{spec.name}.service"


def render(spec: ServiceSpec) -> str:
    """Return the unit: the template, followed by the lines of a system service where it is one."""
    folder = files(__package__)
    template = folder.joinpath("systemd_unit.txt").read_text(encoding="utf-8")
    if spec.system:
        template += folder.joinpath("systemd_system_unit.txt").read_text(encoding="utf-8")
    return Template(template).substitute(
        mark=MARK,
        name=spec.name,
        command=" ".join(map(_word, spec.command)),
        environment=_path(spec.environment),
        folder=_path(spec.config.parent) if spec.config else "/" if spec.system else "-%h",
        stop_s=spec.stop_s,
        open_files=OPEN_FILES,
        protect_system="strict" if spec.system else "full",
        target="multi-user" if spec.system else "default",
        user=f"User={spec.run_as}" if spec.run_as else "DynamicUser=yes",
    )


def commands(spec: ServiceSpec) -> Commands:
    """Return the commands that control the service."""
    unit, systemctl = f"{spec.name}.service", ["systemctl"] if spec.system else ["systemctl", "--user"]
    return Commands(
        start=[[*systemctl, "daemon-reload"], [*systemctl, "enable", unit], [*systemctl, "restart", unit]],
        stop=[[*systemctl, "disable", "--now", unit]],
        after_removal=[[*systemctl, "daemon-reload"]],
        restart=[*systemctl, "restart", unit],
        status=[*systemctl, "--no-pager", "status", unit],
    )


def logs(spec: ServiceSpec, lines: int, *, follow: bool) -> list[str]:
    """Return the command that shows the last lines of the journal."""
    unit = "--unit" if spec.system else "--user-unit"
    more = ["--follow"] if follow else ["--no-pager"]
    return ["journalctl", unit, f"{spec.name}.service", "--lines", str(lines), "--output", "cat", *more]


def _word(word: str) -> str:
    """Quote a word of a command line for systemd."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word or "'" in word or ";" in word else word


def _path(path: Path) -> str:
    return str(path).replace("%", "%%")
