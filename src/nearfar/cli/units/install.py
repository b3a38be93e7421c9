"""Install and uninstall a unit, report each step, and keep its variables in a file for its owner only."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from nearfar.cli.units import launchd, systemd
from nearfar.cli.units.spec import MARK
from nearfar.core.errors import ServiceManagerError, SettingsError
from nearfar.core.toml_files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nearfar.cli.units.spec import ServiceManager, ServiceSpec

MANAGERS: dict[str, ServiceManager] = {"systemd": systemd, "launchd": launchd}

# NAME="value" lines, as systemd and the shell read them: a backslash quotes ", \, $ and a backtick.
_HEADER = '# Variables of the service, such as:  NEARFAR_API_KEY="…"\n'
_LINE = re.compile(r"""^\s*([A-Za-z_][A-Za-z0-9_]*)=(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|(\S*))\s*\Z""")
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
# Control characters, and what is no character: systemd ignores a variable with any of these.
_NO_CHARACTERS = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_UNREADABLE = re.compile(f"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff\ufdd0-\ufdef{_NO_CHARACTERS}]")
_SPECIAL, _ESCAPED = re.compile(r'(["\\`$])'), r"\\\1"
_GROUP_AND_OTHERS = 0o077


def user_id() -> int:
    """Return the id of the current user."""
    return os.getuid()


def install(
    spec: ServiceSpec,
    manager: ServiceManager,
    variables: Mapping[str, str],
    report: Callable[[str], None],
    *,
    force: bool,
) -> None:
    """Write the unit and the file of variables, and start the service. ``report`` receives a line for each step.

    Overwrites a unit of an earlier installation, and any other only with ``force``. Keeps an existing file of
    variables. Raises ServiceManagerError, if possible before anything has been written.
    """
    unit = manager.unit_file(spec)
    _require_own_unit(unit, force=force)
    _require_reachable(spec)
    try:
        if spec.environment.exists():
            report(f"kept     {spec.environment}, as it was")
        else:
            write_variables(spec.environment, variables)
            if spec.run_as and manager is launchd:  # systemd reads it as root
                shutil.chown(spec.environment, spec.run_as)
            report(f"wrote    {spec.environment}, with {_names(variables)}; only its owner can read it")
        unit.parent.mkdir(parents=True, exist_ok=True)
        replace_file(unit, manager.render(spec))
    except (OSError, LookupError) as error:
        raise ServiceManagerError(f"{error}{_root_hint(spec)}") from error
    report(f"wrote    {unit}")
    commands = manager.commands(spec)
    for command in commands.before_start:
        _run(command, may_fail=True)
    _run_all(commands.start, report)


def _names(variables: Mapping[str, str]) -> str:
    return ", ".join(sorted(variables)) or "no variables yet"


def uninstall(spec: ServiceSpec, manager: ServiceManager, report: Callable[[str], None], *, force: bool) -> None:
    """Stop the service and remove its unit; keep the file of variables.

    Raises ServiceManagerError for a unit that nearfar didn't write, unless with ``force``.
    """
    unit = manager.unit_file(spec)
    if not unit.exists():
        raise ServiceManagerError(f"no service to uninstall: there is no {unit}")
    _require_own_unit(unit, force=force)
    commands = manager.commands(spec)
    _run_all(commands.stop, report, may_fail=True)  # it may be stopped already
    try:
        unit.unlink()
    except OSError as error:
        raise ServiceManagerError(f"{error}{_root_hint(spec)}") from error
    report(f"removed  {unit}")
    _run_all(commands.after_removal, report)
    if spec.environment.exists():
        report(f"kept     {spec.environment}")


def run_on_output(command: Sequence[str]) -> int:
    """Run the service manager's command on our standard output. Return its exit code."""
    try:
        return subprocess.run(command, check=False).returncode  # noqa: S603 — fixed words
    except FileNotFoundError as error:
        raise ServiceManagerError(f"{command[0]} isn't on this machine's PATH") from error
    except KeyboardInterrupt:  # ends logs --follow
        return 0


def _require_own_unit(unit: Path, *, force: bool) -> None:
    if unit.exists() and not force and MARK not in unit.read_text(encoding="utf-8", errors="replace"):
        raise ServiceManagerError(f"{unit} was not written by nearfar; use another --name, or --force")


def _require_reachable(spec: ServiceSpec) -> None:
    """Raise ServiceManagerError if the service's user can't reach the interpreter or the settings."""
    if not spec.system or spec.run_as:
        return
    for path in (spec.python, spec.python.resolve(), *([spec.config] if spec.config else [])):
        if closed := next((above for above in reversed(path.parents) if not above.stat().st_mode & stat.S_IXOTH), None):
            raise ServiceManagerError(
                f"{path} can't be read by the user that systemd creates for the service, because of the permissions of "
                f"{closed}; move it to a public folder such as /opt or /etc, or use --run-as USER"
            )


def _run_all(commands: Sequence[Sequence[str]], report: Callable[[str], None], *, may_fail: bool = False) -> None:
    """Report and run each command."""
    for command in commands:
        report(f"run      {' '.join(command)}")
        _run(command, may_fail=may_fail)


def _run(command: Sequence[str], *, may_fail: bool = False) -> None:
    try:
        ended = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 — fixed words
    except FileNotFoundError as error:
        raise ServiceManagerError(
            f"{command[0]} isn't on this machine's PATH, so the unit is there but not started"
        ) from error
    if ended.returncode and not may_fail:
        reason = (ended.stderr or ended.stdout).strip().splitlines()
        raise ServiceManagerError(
            f"{' '.join(command)}: failed with {ended.returncode}{f': {reason[-1]}' if reason else ''}"
        )


def _root_hint(spec: ServiceSpec) -> str:
    return "; installing with --system needs root (sudo)" if spec.system and user_id() else ""


def write_variables(file: Path, variables: Mapping[str, str]) -> None:
    """Create the file, which must not exist yet, readable by its owner only.

    Raises ServiceManagerError for what systemd and the shell can't both read back.
    """
    for name, value in variables.items():
        if not _NAME.fullmatch(name) or _UNREADABLE.search(value):
            raise ServiceManagerError(
                f"{name[:60]!r}: a file of variables can't have its name, or a control character in its value"
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600, exist_ok=False)
    lines = [f'{name}="{_SPECIAL.sub(_ESCAPED, value)}"\n' for name, value in sorted(variables.items())]
    file.write_text(_HEADER + "".join(lines), encoding="utf-8")


def read_variables(file: Path) -> dict[str, str]:
    """Return the variables; none without a file. Raises SettingsError if others can read it, or for a bad line."""
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: can't be read ({error})") from error
    if mode & _GROUP_AND_OTHERS:
        raise SettingsError(f"{file}: others can read it, and it may have keys; run: chmod 600 {file}")
    variables: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        if not (found := _LINE.match(line)):
            raise SettingsError(f'{file}: line {number} is not NAME="value"')
        name, double, single, bare = found.groups()
        variables[name] = re.sub(r'\\(["\\`$])', r"\1", double) if double is not None else single or bare or ""
    return variables
