"""Putting a unit in its place and having it run, and taking it away again; each step told as it is done."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from nearfar.cli.units import launchd, systemd
from nearfar.cli.units.environment import write_variables
from nearfar.cli.units.order import MARK
from nearfar.core.errors import ServiceManagerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nearfar.cli.units.order import UnitOrder, Way

WAYS: dict[str, Way] = {"systemd": systemd, "launchd": launchd}


def user_id() -> int:
    """Give the number of the user who runs this."""
    return os.getuid()


def install(
    order: UnitOrder, way: Way, variables: Mapping[str, str], say: Callable[[str], None], *, force: bool
) -> None:
    """Write the unit and the file of variables, and start the service.

    The unit takes the place of one that we wrote before, and of anybody else's by ``force`` alone; a file of variables
    that is there stays as it is. Raises ServiceManagerError, before anything is written where that can be known.
    """
    unit = way.unit_file(order)
    _refuse_foreign(unit, force=force)
    _refuse_unreachable(order)
    try:
        if order.environment.exists():
            say(f"kept     {order.environment}, as it was")
        else:
            write_variables(order.environment, variables)
            if order.run_as and way is launchd:  # systemd reads it before it becomes that user
                shutil.chown(order.environment, order.run_as)
            say(f"wrote    {order.environment}, for the service's NEARFAR_ variables; only its owner may read it")
        _write_whole(unit, way.render(order))
    except (OSError, LookupError) as error:
        raise ServiceManagerError(f"{error}{_wants_root(order)}") from error
    say(f"wrote    {unit}")
    for command in way.clear(order):
        _run(command, may_fail=True)
    for command in way.start(order):
        _run(command)
        say(f"ran      {' '.join(command)}")


def uninstall(order: UnitOrder, way: Way, say: Callable[[str], None], *, force: bool) -> None:
    """Stop the service and take its unit away; the variables stay.

    Raises ServiceManagerError for a unit that this command didn't write.
    """
    unit = way.unit_file(order)
    if not unit.exists():
        raise ServiceManagerError(f"there is no {unit}, so no service to uninstall")
    _refuse_foreign(unit, force=force)
    for command in way.stop(order):
        _run(command, may_fail=True)  # it may have been stopped by hand
        say(f"ran      {' '.join(command)}")
    try:
        unit.unlink()
    except OSError as error:
        raise ServiceManagerError(f"{error}{_wants_root(order)}") from error
    say(f"removed  {unit}")
    for command in way.forget(order):
        _run(command)
        say(f"ran      {' '.join(command)}")
    if order.environment.exists():
        say(f"kept     {order.environment}")


def show(command: Sequence[str]) -> int:
    """Let the system's own command answer, on our output; give its exit code."""
    try:
        return subprocess.run(command, check=False).returncode  # noqa: S603 — words of our own
    except FileNotFoundError as error:
        raise ServiceManagerError(f"{command[0]} isn't on this machine's PATH") from error
    except KeyboardInterrupt:  # the way to end a log that is followed
        return 0


def _refuse_foreign(unit: Path, *, force: bool) -> None:
    if unit.exists() and not force and MARK not in unit.read_text(encoding="utf-8", errors="replace"):
        raise ServiceManagerError(f"{unit} was not written by nearfar; choose another --name, or say --force")


def _refuse_unreachable(order: UnitOrder) -> None:
    """Refuse what only the installing user can reach, where the service is to run as somebody else."""
    if not order.system or order.run_as:
        return
    for path in (order.python, order.python.resolve(), *([order.config] if order.config else [])):
        if closed := next((above for above in reversed(path.parents) if not above.stat().st_mode & stat.S_IXOTH), None):
            raise ServiceManagerError(
                f"{path} is out of reach for a user made for the service, as only some may enter {closed}; "
                "put it where all may, such as /opt or /etc, or say --run-as USER"
            )


def _write_whole(file: Path, text: str) -> None:
    """Write the file at once, so that nobody finds half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
        made = Path(new.name)
        try:
            new.write(text)
            new.flush()
            made.chmod(0o644)
            made.replace(file)
        except BaseException:
            made.unlink(missing_ok=True)
            raise


def _run(command: Sequence[str], *, may_fail: bool = False) -> None:
    try:
        ended = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 — words of our own
    except FileNotFoundError as error:
        raise ServiceManagerError(
            f"{command[0]} isn't on this machine's PATH, so the unit is there but not started"
        ) from error
    if ended.returncode and not may_fail:
        reason = (ended.stderr or ended.stdout).strip().splitlines()
        raise ServiceManagerError(
            f"{' '.join(command)}: failed with {ended.returncode}{f': {reason[-1]}' if reason else ''}"
        )


def _wants_root(order: UnitOrder) -> str:
    return "; a service of the whole system is installed by root (sudo)" if order.system and user_id() else ""
