"""The command ``nearfar service``: nearfar as a service of this system, systemd's or launchd's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from platformdirs import user_config_path

from nearfar.cli.units.environment import read_variables
from nearfar.cli.units.installing import WAYS, install, show, uninstall, user_id
from nearfar.cli.units.order import UnitOrder
from nearfar.core.errors import NearfarError
from nearfar.core.settings import load_settings, nearfar_variables

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.core.settings import Settings

_OPTIONS: list[Callable[..., Any]] = [
    click.option(
        "--name", default="nearfar", show_default=True, help="The service's; several may run beside each other."
    ),
    click.option("--system", is_flag=True, help="For the whole machine, from boot on, instead of for you."),
    click.option(
        "--manager",
        type=click.Choice(list(WAYS)),
        default="launchd" if sys.platform == "darwin" else "systemd",
        show_default=True,
    ),
    click.option("--root", type=click.Path(path_type=Path), default=Path("/"), hidden=True),
]


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def service() -> None:
    """Run nearfar as a service of this system, so that it starts by itself and again after a fault."""


@service.command(name="install")
@_options
@click.option(
    "--config", type=click.Path(path_type=Path), envvar="NEARFAR_CONFIG", help="The TOML file of settings to serve."
)
@click.option("--run-as", metavar="USER", help="With --system, the user to run as.  [default: one made by systemd]")
@click.option("--print", "only_print", is_flag=True, help="Show the unit, and change nothing.")
@click.option("--force", is_flag=True, help="Take the place of a unit that something else wrote.")
def install_service(*, only_print: bool, force: bool, manager: str, **said: Any) -> None:
    """Write a unit for the settings in a file, start it, and start it again at every boot or login.

    NEARFAR_ variables that are set now, such as NEARFAR_API_KEY, go into a file that only its owner may read.
    """
    way = WAYS[manager]
    try:
        order, variables = _checked_order(manager, **said)
        if only_print:
            click.echo(way.render(order), nl=False)
            return
        install(order, way, variables, click.echo, force=force)
    except NearfarError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"undo     nearfar service uninstall{_same(order)}")
    if manager == "systemd" and not order.system:
        click.echo("note     it stops when you log out, unless you say once: loginctl enable-linger")


@service.command(name="uninstall")
@_options
@click.option("--force", is_flag=True, help="Remove even a unit that something else wrote.")
def uninstall_service(*, force: bool, manager: str, **said: Any) -> None:
    """Stop the service and remove its unit; its settings and keys stay."""
    try:
        uninstall(_order(manager, **said), WAYS[manager], click.echo, force=force)
    except NearfarError as error:
        raise click.ClickException(str(error)) from error


@service.command(name="status")
@_options
def show_status(*, manager: str, **said: Any) -> None:
    """Show how the service is; the exit code is the service manager's own."""
    _show(lambda: show(WAYS[manager].status(_order(manager, **said))))


@service.command(name="logs")
@_options
@click.option("--lines", type=click.IntRange(1), default=100, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
def show_logs(*, manager: str, lines: int, follow: bool, **said: Any) -> None:
    """Show the service's last log lines."""
    _show(lambda: show(WAYS[manager].logs(_order(manager, **said), lines, follow=follow)))


def _show(call: Callable[[], int]) -> None:
    try:
        code = call()
    except NearfarError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(code)


def _checked_order(manager: str, config: Path | None, **said: Any) -> tuple[UnitOrder, dict[str, str]]:
    """Check what the service would be given, and give its variables: those of its file, or else those set now."""
    config = config.absolute() if config else None
    order = _order(manager, config=config, **said)
    if order.system and manager == "launchd" and not order.run_as:
        raise click.UsageError("launchd makes no user for a service, and root needn't be it; say --run-as USER")
    variables = read_variables(order.environment) if order.environment.exists() else nearfar_variables()
    settings: Settings = load_settings({}, file=config, environ=variables)
    return msgspec.structs.replace(order, drain_timeout_s=settings.drain_timeout_s), variables


def _order(manager: str, *, name: str, system: bool, root: Path, **more: Any) -> UnitOrder:
    of_system = root / ("Library/Application Support/nearfar" if manager == "launchd" else "etc/nearfar")
    said: dict[str, Any] = {
        "name": name,
        "python": Path(sys.executable),
        "config": None,
        "environment": (of_system if system else user_config_path("nearfar")) / f"{name}.env",
        "drain_timeout_s": 0.0,
        "system": system,
        "uid": user_id(),
        "root": root,
        "home": Path.home(),
        "user_config": user_config_path(),
        **more,
    }
    if said.get("run_as") and not system:
        raise click.UsageError("--run-as is for --system: a user's own service runs as that user")
    try:
        return msgspec.convert(said, UnitOrder)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"--name {name}: letters, digits, '.', '_' and '-' only") from error


def _same(order: UnitOrder) -> str:
    """Say the options that name this service again."""
    return (" --system" if order.system else "") + (f" --name {order.name}" if order.name != "nearfar" else "")
