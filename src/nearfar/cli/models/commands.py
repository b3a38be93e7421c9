"""The commands ``check``, ``pull``, ``models``, ``convert`` and ``unpickle``."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Any, get_args

import click

from nearfar.cli.models.catalog import CatalogLanguage, CatalogTask, list_catalog
from nearfar.cli.options import config_option, engine_options, folder_options, hub_options, read_settings


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@engine_options
def check(models: tuple[str, ...], file: Path | None, **options: object) -> None:
    """Load each MODEL, test it, and print what it is.

    The test ranks known sentences. The exit code is 1 if a model ranks them wrong.
    """
    from nearfar.cli.models.check import check_models

    passed = asyncio.run(check_models(read_settings(models, file, options), click.echo))
    sys.exit(0 if passed else 1)


@click.command()
@click.argument("model")
@hub_options
def pull(model: str, file: Path | None, **options: object) -> None:
    """Download MODEL from the hub, and check that it can be served."""
    from nearfar.cli.models.check import describe_files

    for line in describe_files(read_settings((model,), file, options)):
        click.echo(line)


@click.command(name="models")
@click.option("--catalog", is_flag=True, help="List models worth serving instead.")
@click.option("--task", type=click.Choice(get_args(CatalogTask)), help="Only the catalog's models of this task.")
@click.option("--language", type=click.Choice(get_args(CatalogLanguage)), help="Only its models of this language.")
@config_option
def list_models(catalog: bool, task: str | None, language: str | None, file: Path | None) -> None:
    """List models on this disk and engines that run here."""
    from nearfar.cli.models.check import list_engines, list_local_models

    settings = read_settings((), file, {})
    if catalog or task or language:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        lines = [*list_catalog(task, language, settings.device, width=width)]
    else:
        lines = [*list_local_models(settings), "", *list_engines(settings.device)]
    click.echo("\n".join(lines))


@click.command()
@click.argument("model")
@click.option("--bits", type=click.IntRange(2, 8), help="Bits per weight.  [default: 4; 8 for mxfp8]")
@click.option(
    "--mode",
    type=click.Choice(["affine", "mxfp4", "mxfp8", "nvfp4"]),
    default="affine",
    show_default=True,
    help="Number format of MLX.",
)
@click.option("--group-size", type=int, help="Weights that share a scale.  [default: the mode's]")
@folder_options
def convert(model: str, out: Path | None, file: Path | None, **options: Any) -> None:
    """Quantize MODEL for MLX, into a new folder."""
    from nearfar.cli.models.convert import convert_model

    quantization = {name: options.pop(name) for name in ("bits", "mode", "group_size")}
    for line in convert_model(read_settings((model,), file, options), out, **quantization):
        click.echo(line)


@click.command()
@click.argument("model")
@folder_options
def unpickle(model: str, out: Path | None, file: Path | None, **options: object) -> None:
    """Convert MODEL's pickled weights to safetensors.

    The result is a new folder. No code in the pickles is run.
    """
    from nearfar.cli.models.convert import unpickle_model

    for line in unpickle_model(read_settings((model,), file, options), out):
        click.echo(line)
