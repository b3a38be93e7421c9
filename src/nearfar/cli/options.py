"""Options that several commands share."""

from __future__ import annotations

import sys
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearfar.cli.units.install import MANAGERS
from nearfar.core.environment import check_environment
from nearfar.core.errors import SetupError
from nearfar.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., Any]

_path = click.Path(path_type=Path)


def _add_options(options: list[Command], command: Command) -> Command:
    """Add the options to a command, in this order; a decorator once the options are bound."""
    return reduce(lambda decorated, option: option(decorated), reversed(options), command)


config_option = click.option("--config", "file", type=_path, help="TOML file of settings.")
_offline = click.option("--offline", is_flag=True, default=None, help="Never download anything.")
hub_options = partial(_add_options, [_offline, config_option])
engine_options = partial(
    _add_options,
    [
        click.option("--engine", metavar="NAME", help="Engine that runs the models: auto, torch, openvino, mlx."),
        click.option("--device", metavar="NAME", help="Device that the engine uses: auto, cpu, cuda, mps."),
        click.option("--dtype", metavar="NAME", help="Precision: auto, float32, float16, bfloat16, int8."),
        _offline,
        config_option,
    ],
)
folder_options = partial(
    _add_options,
    [
        click.option("--out", type=_path, help="Folder to create.  [default: named after MODEL, here]"),
        _offline,
        config_option,
    ],
)
service_options = partial(
    _add_options,
    [
        click.option(
            "--name", default="nearfar", show_default=True, help="Name of the service; several can be installed."
        ),
        click.option("--system", is_flag=True, help="For the whole machine, from boot on, instead of for you."),
        click.option(
            "--manager",
            type=click.Choice(list(MANAGERS)),
            default="launchd" if sys.platform == "darwin" else "systemd",
            show_default=True,
            help="Service manager.",
        ),
        click.option("--root", type=_path, default=Path("/"), hidden=True),
    ],
)


def refuse_workers(context: click.Context, option: click.Parameter, workers: int) -> None:
    """Raise BadParameter for any number of worker processes but one."""
    if workers != 1:
        raise click.BadParameter(
            "one process already uses all cores; each more would load every model again, with separate queues, limits "
            "and metrics. For several servers behind one address see: nearfar example nginx",
            context,
            option,
        )


def read_settings(models: tuple[str, ...], file: Path | None, options: dict[str, object]) -> Settings:
    """Return the settings with these options. Raises UsageError, which ends the program with exit code 2."""
    argv = {name: value for name, value in options.items() if value is not None}
    if not all(map(str.strip, models)):
        raise click.UsageError("a MODEL is empty, as an unset variable is; leave it out, or name a model")
    if models:
        argv["models"] = [{"name": name} for name in models]
    try:
        check_environment()
        return load_settings(argv, file=file)
    except SetupError as error:
        raise click.UsageError(str(error)) from error
