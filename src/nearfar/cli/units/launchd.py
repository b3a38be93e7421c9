"""Property lists and commands of macOS's launchd. Written by its manual; not yet run on a Mac."""

from __future__ import annotations

import plistlib
from typing import TYPE_CHECKING, Any

from nearfar.cli.units.spec import MARK, OPEN_FILES, Commands

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.cli.units.spec import ServiceSpec

# launchd can't read variables from a file, and every user can read the plist.
_WITH_ENVIRONMENT = 'if [ -r "$0" ]; then set -a; . "$0"; set +a; fi; exec "$@"'


def unit_file(spec: ServiceSpec) -> Path:
    """Return ``/Library/LaunchDaemons/NAME.plist``, or the user's LaunchAgents."""
    folder = spec.root / "Library/LaunchDaemons" if spec.system else spec.home / "Library/LaunchAgents"
    return folder / f"{spec.name}.plist"


def log_file(spec: ServiceSpec) -> Path:
    """Return the file for all output; launchd has no journal."""
    return (spec.root if spec.system else spec.home) / f"Library/Logs/{spec.name}.log"


def render(spec: ServiceSpec) -> str:
    """Return the property list. launchd restarts the service whenever it exits."""
    log = str(log_file(spec))
    unit: dict[str, Any] = {
        "Label": spec.name,
        "ProgramArguments": ["/bin/sh", "-c", _WITH_ENVIRONMENT, str(spec.environment), *spec.command],
        "RunAtLoad": True,
        "KeepAlive": True,
        "ThrottleInterval": 10,
        "ExitTimeOut": spec.stop_s,
        "ProcessType": "Interactive",  # other types get less CPU
        "SoftResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "HardResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "StandardOutPath": log,
        "StandardErrorPath": log,
        "Umask": 0o077,
    }
    if spec.config:
        unit["WorkingDirectory"] = str(spec.config.parent)
    if spec.run_as:
        unit["UserName"] = spec.run_as
    head, _, rest = plistlib.dumps(unit, sort_keys=False).decode().partition("<plist")
    return f"{head}<!-- {MARK} -->\n<plist{rest}"


def commands(spec: ServiceSpec) -> Commands:
    """Return the commands that control the service. launchd can't load a name twice, so start unloads it first."""
    domain = "system" if spec.system else f"gui/{spec.uid}"
    unload = [["launchctl", "bootout", f"{domain}/{spec.name}"]]
    return Commands(
        before_start=unload,
        start=[["launchctl", "bootstrap", domain, str(unit_file(spec))]],
        stop=unload,
        restart=["launchctl", "kickstart", "-k", f"{domain}/{spec.name}"],
        status=["launchctl", "print", f"{domain}/{spec.name}"],
    )


def logs(spec: ServiceSpec, lines: int, *, follow: bool) -> list[str]:
    """Return the command that shows the last lines of its log file."""
    return ["tail", "-n", str(lines), *(["-F"] if follow else []), str(log_file(spec))]
