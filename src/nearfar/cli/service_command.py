"""The command ``nearfar service``: installs and controls nearfar as a service of systemd or launchd."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from platformdirs import user_config_path

from nearfar.cli.hints import ServiceGroup
from nearfar.cli.options import service_options
from nearfar.cli.units.install import MANAGERS, install, read_variables, run_on_output, uninstall, user_id
from nearfar.cli.units.spec import ServiceSpec
from nearfar.core.environment import service_variables
from nearfar.core.settings import load_settings

if TYPE_CHECKING:
    from nearfar.core.settings import Settings


@click.group(cls=ServiceGroup)
def service() -> None:
    """Install and control nearfar as a service.

    systemd or launchd then starts it at boot or login, and after a crash.
    """


@service.command(name="install")
@service_options
@click.option("--config", type=click.Path(path_type=Path), envvar="NEARFAR_CONFIG", help="TOML file of settings.")
@click.option(
    "--run-as", metavar="USER", help="With --system, the user to run as.  [default: one that systemd creates]"
)
@click.option("--print", "only_print", is_flag=True, help="Print the unit, and change nothing.")
@click.option("--force", is_flag=True, help="Overwrite a unit that nearfar didn't write.")
def install_service(*, only_print: bool, force: bool, manager: str, **options: Any) -> None:
    """Write a unit, start it, and enable it at every boot or login.

    NEARFAR_ variables that are set now, such as NEARFAR_API_KEY, go into a file that only its owner can read; so do
    those that downloads need: HF_*, proxies and certificates. Waits until the models are open.
    """
    spec, variables = _checked_spec(manager, **options)
    if only_print:
        click.echo(MANAGERS[manager].render(spec), nl=False)
        return
    install(spec, MANAGERS[manager], variables, click.echo, force=force)
    click.echo(f"undo     nearfar service uninstall{_options_of(spec)}")
    if manager == "systemd" and not spec.system:
        click.echo("note     it stops when you log out, unless you run once: loginctl enable-linger")


@service.command(name="uninstall")
@service_options
@click.option("--force", is_flag=True, help="Remove even a unit that nearfar didn't write.")
def uninstall_service(*, force: bool, manager: str, **options: Any) -> None:
    """Stop the service and remove its unit; keep its settings and keys."""
    uninstall(_spec(manager, **options), MANAGERS[manager], click.echo, force=force)


@service.command(name="restart")
@service_options
def restart_service(*, manager: str, **options: Any) -> None:
    """Restart the service, with its settings as they are now."""
    sys.exit(run_on_output(MANAGERS[manager].commands(_spec(manager, **options)).restart))


@service.command(name="status")
@service_options
def show_status(*, manager: str, **options: Any) -> None:
    """Show the state of the service.

    The exit code is that of the service manager.
    """
    spec = _spec(manager, **options)
    unit = MANAGERS[manager].unit_file(spec)
    if not unit.exists():
        click.echo(f"{unit} doesn't exist: nearfar service install writes it", err=True)
    sys.exit(run_on_output(MANAGERS[manager].commands(spec).status))


@service.command(name="logs")
@service_options
@click.option("--lines", type=click.IntRange(1), default=100, show_default=True, help="Lines to show.")
@click.option("--follow", "-f", is_flag=True, help="Show new lines until Ctrl-C.")
def show_logs(*, manager: str, lines: int, follow: bool, **options: Any) -> None:
    """Show the last lines of the service's log."""
    sys.exit(run_on_output(MANAGERS[manager].logs(_spec(manager, **options), lines, follow=follow)))


def _checked_spec(manager: str, config: Path | None, **options: Any) -> tuple[ServiceSpec, dict[str, str]]:
    """Return the service and its variables: those of its file, or else those set now. Validates its settings."""
    config = config.absolute() if config else None
    spec = _spec(manager, config=config, **options)
    if spec.system and manager == "launchd" and not spec.run_as:
        raise click.UsageError("launchd creates no user for a service, and it shouldn't run as root; use --run-as USER")
    variables = read_variables(spec.environment) if spec.environment.exists() else service_variables()
    settings: Settings = load_settings({}, file=config, environ=variables)
    return msgspec.structs.replace(spec, drain_timeout_s=settings.drain_timeout_s), variables


def _spec(manager: str, *, name: str, system: bool, root: Path, **more: Any) -> ServiceSpec:
    home, user_config = _home_folders(system=system)
    system_folder = root / ("Library/Application Support/nearfar" if manager == "launchd" else "etc/nearfar")
    fields: dict[str, Any] = {
        "name": name,
        "python": Path(sys.executable),
        "config": None,
        "environment": (system_folder if system else user_config / "nearfar") / f"{name}.env",
        "drain_timeout_s": 0.0,
        "system": system,
        "uid": user_id(),
        "root": root,
        "home": home,
        "user_config": user_config,
        **more,
    }
    if fields.get("run_as") and not system:
        raise click.UsageError("--run-as needs --system: your own service runs as you")
    try:
        return msgspec.convert(fields, ServiceSpec)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"--name {name}: letters, digits, '.', '_' and '-' only") from error


def _home_folders(*, system: bool) -> tuple[Path, Path]:
    """Return the home folder and that of the user's settings. Raises UsageError if a service needs them."""
    try:
        return Path.home(), user_config_path()
    except RuntimeError as error:
        if system:
            return Path("/"), Path("/")
        why = "there is no home folder for a service of your own; set HOME, or use --system"
        raise click.UsageError(why) from error


def _options_of(spec: ServiceSpec) -> str:
    """Return the options that name this service in other commands."""
    return (" --system" if spec.system else "") + (f" --name {spec.name}" if spec.name != "nearfar" else "")
