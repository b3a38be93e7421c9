"""A service as macOS's launchd wants it. Written by its manual, and not yet run on a Mac."""

from __future__ import annotations

import plistlib
from typing import TYPE_CHECKING, Any

from nearfar.cli.units.order import MARK, OPEN_FILES

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.cli.units.order import UnitOrder

# launchd can't read variables from a file, and one in the plist could be read by everybody.
_WITH_ENVIRONMENT = 'if [ -r "$0" ]; then set -a; . "$0"; set +a; fi; exec "$@"'


def unit_file(order: UnitOrder) -> Path:
    """Give ``/Library/LaunchDaemons/NAME.plist``, or the user's own of LaunchAgents."""
    folder = order.root / "Library/LaunchDaemons" if order.system else order.home / "Library/LaunchAgents"
    return folder / f"{order.name}.plist"


def log_file(order: UnitOrder) -> Path:
    """Give the file that all output goes to; launchd keeps no journal."""
    return (order.root if order.system else order.home) / f"Library/Logs/{order.name}.log"


def render(order: UnitOrder) -> str:
    """Write the property list: it waits for the drain, and starts the service again whenever it ends."""
    log = str(log_file(order))
    unit: dict[str, Any] = {
        "Label": order.name,
        "ProgramArguments": ["/bin/sh", "-c", _WITH_ENVIRONMENT, str(order.environment), *order.command],
        "RunAtLoad": True,
        "KeepAlive": True,
        "ThrottleInterval": 10,
        "ExitTimeOut": order.stop_s,
        "ProcessType": "Interactive",  # others are given less of the processor
        "SoftResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "HardResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "StandardOutPath": log,
        "StandardErrorPath": log,
        "Umask": 0o077,
    }
    if order.config:
        unit["WorkingDirectory"] = str(order.config.parent)
    if order.run_as:
        unit["UserName"] = order.run_as
    head, _, rest = plistlib.dumps(unit, sort_keys=False).decode().partition("<plist")
    return f"{head}<!-- {MARK} -->\n<plist{rest}"


def clear(order: UnitOrder) -> list[list[str]]:
    """Unload what has the name: launchd refuses to load it twice."""
    return stop(order)


def start(order: UnitOrder) -> list[list[str]]:
    """Load it, which starts it now and at every boot or login."""
    return [["launchctl", "bootstrap", _domain(order), str(unit_file(order))]]


def stop(order: UnitOrder) -> list[list[str]]:
    """Unload it, which ends it."""
    return [["launchctl", "bootout", f"{_domain(order)}/{order.name}"]]


def forget(order: UnitOrder) -> list[list[str]]:  # noqa: ARG001 — systemd wants to hear of it
    """Give nothing."""
    return []


def status(order: UnitOrder) -> list[str]:
    """Show its state."""
    return ["launchctl", "print", f"{_domain(order)}/{order.name}"]


def logs(order: UnitOrder, lines: int, *, follow: bool) -> list[str]:
    """Show the file's last lines."""
    return ["tail", "-n", str(lines), *(["-F"] if follow else []), str(log_file(order))]


def _domain(order: UnitOrder) -> str:
    return "system" if order.system else f"gui/{order.uid}"
