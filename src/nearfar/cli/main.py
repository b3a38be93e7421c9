"""The command ``nearfar`` and its subcommands: a command line → settings, errors → sentences."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

import nearfar
from nearfar.cli.assets.examples import NAMES, read_example
from nearfar.cli.service import service
from nearfar.core.caller import ALL_SCOPES
from nearfar.core.errors import NearfarError, SetupError
from nearfar.core.settings import limit_openmp_spinning, load_settings
from nearfar.docs import PAGES, read_page
from nearfar.process.supervisor import Start, supervise

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.cli.assets.monitoring import Part
    from nearfar.core.settings import Settings

_ENGINE_OPTIONS: list[Callable[..., Any]] = [
    click.option(
        "--engine", metavar="NAME", help="Engine to run the models with; auto takes the best that can run here."
    ),
    click.option("--device", metavar="auto|cpu|cuda|mps"),
    click.option("--dtype", metavar="auto|float32|float16|bfloat16|int8"),
    click.option("--offline", is_flag=True, default=None, help="Never download anything."),
    click.option("--config", "file", type=click.Path(path_type=Path), help="A TOML file of settings."),
]


def _engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_ENGINE_OPTIONS):
        command = option(command)
    return command


def _refuse_workers(context: click.Context, option: click.Parameter, workers: int) -> None:
    if workers != 1:
        raise click.BadParameter(
            "one process is a server: it runs on all cores as it is, and each more would hold the models once more and "
            "have metrics and limits of its own; for several servers behind one address see: nearfar example nginx",
            context,
            option,
        )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(nearfar.__version__, prog_name="nearfar")
def main() -> None:
    """Serve embeddings and reranking to OpenAI and Cohere clients from this machine.

    Every option can also be set by its NEARFAR_ variable (--port: NEARFAR_PORT) or in a TOML file; the README lists
    these, and a few more.
    """
    limit_openmp_spinning()


main.add_command(service)


@main.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--model", "more", multiple=True, metavar="MODEL", help="The same as MODEL; may be said several times.")
@_engine_options
@click.option("--host", help="Address to listen on; any but this machine's own wants a key.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="[default: 9000]")
@click.option("--api-key", help="Key that callers must send. Prefer NEARFAR_API_KEY: a command line can be seen.")
@click.option("--no-auth", is_flag=True, default=None, help="Serve other machines without a key.")
@click.option("--tls-cert-file", metavar="FILE", help="Serve https with this certificate, in PEM; and its issuers'.")
@click.option("--tls-key-file", metavar="FILE", help="The certificate's private key, in PEM.")
@click.option(
    "--on-overflow", metavar="truncate|error", help="Text over a model's limit: cut it and say so, or refuse it."
)
@click.option("--threads", type=int, help="Cores for the models to run on.  [default: all]")
@click.option("--load", metavar="start|demand", help="When models open: at the start, or when first asked for.")
@click.option("--memory-budget", metavar="SIZE", help="For the weights of all loaded models, such as 8GB.")
@click.option("--log-format", metavar="auto|human|json")
@click.option("--workers", type=int, default=1, hidden=True, expose_value=False, callback=_refuse_workers)
@click.option(
    "--worker",
    type=(int, int, click.Choice(get_args(Start))),
    hidden=True,
    help="Serve as a worker, on files that are open already.",
)
def serve(
    models: tuple[str, ...],
    more: tuple[str, ...],
    file: Path | None,
    worker: tuple[int, int, Start] | None,
    **said: object,
) -> None:
    """Serve MODELs: the built-in all-MiniLM-L6-v2, folders, or Hugging Face names (owner/model@revision)."""
    settings = _settings((*models, *more), file, said)
    if worker is None:
        arguments = sys.argv[2:]
        itself = sys.orig_argv[1 : -len(arguments) or None]  # the interpreter's own options too
        sys.exit(supervise(settings, [sys.executable, *itself, "--worker"], arguments))
    import uvloop

    from nearfar.process.worker import run_worker  # litestar and granian take 0.3 s that --help needn't wait for

    sys.exit(uvloop.run(run_worker(settings, *worker)))


@main.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@_engine_options
def check(models: tuple[str, ...], file: Path | None, **said: object) -> None:
    """Load each MODEL, run it on known sentences, and print what it is, whether it makes sense and how fast it runs."""
    from nearfar.cli.check import check_models

    settings = _settings(models, file, said)
    try:
        good = asyncio.run(check_models(settings, click.echo))
    except NearfarError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(0 if good else 1)


@main.command()
@click.argument("model")
@click.option("--bits", type=click.IntRange(2, 8), help="Bits a weight.  [default: 4; 8 for mxfp8]")
@click.option("--mode", type=click.Choice(["affine", "mxfp4", "mxfp8", "nvfp4"]), default="affine", show_default=True)
@click.option("--group-size", type=int, help="Weights that share a scale.  [default: the mode's own]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make.  [default: such as MODEL-4bit, here]")
@click.option("--offline", is_flag=True, default=None, help="Never download anything.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="A TOML file of settings.")
def convert(model: str, out: Path | None, file: Path | None, **said: Any) -> None:
    """Quantise MODEL for MLX into a folder of its own, and print what that saves and what it costs."""
    from nearfar.cli.convert import convert_model

    way = {name: said.pop(name) for name in ("bits", "mode", "group_size")}
    settings = _settings((model,), file, said)
    try:
        for line in convert_model(settings, out, **way):
            click.echo(line)
    except NearfarError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make.  [default: MODEL-safetensors, here]")
@click.option("--offline", is_flag=True, default=None, help="Never download anything.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="A TOML file of settings.")
def unpickle(model: str, out: Path | None, file: Path | None, **said: Any) -> None:
    """Write MODEL's pickled weights anew as safetensors, without running anything that may be in them."""
    from nearfar.cli.unpickle import unpickle_model

    settings = _settings((model,), file, said)
    try:
        for line in unpickle_model(settings, out):
            click.echo(line)
    except NearfarError as error:
        raise click.ClickException(str(error)) from error


@main.group()
def keys() -> None:
    """Make API keys for the file that the setting api_keys_file names."""


@keys.command(name="new")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(ALL_SCOPES), help="[default: embed, rerank]")
def new_key(name: str, scopes: tuple[str, ...]) -> None:
    """Make a key called NAME: the key itself goes to the terminal, once, and its entry for the file after it."""
    from nearfar.http.auth import make_key

    key, entry = make_key(name, scopes)
    click.echo(f"# the key, shown this once: {key}", err=True)
    click.echo(entry)


@main.command(name="models")
@click.option("--config", "file", type=click.Path(path_type=Path), help="A TOML file of settings.")
def list_models(file: Path | None) -> None:
    """List the models that are on this disk and the engines that can run here."""
    from nearfar.cli.check import list_engines, list_local_models

    settings = _settings((), file, {})
    for line in [*list_local_models(settings), "", *list_engines(settings.device)]:
        click.echo(line)


@main.command()
@click.argument("part", type=click.Choice(["dashboard", "alerts"]))
def monitoring(part: Part) -> None:
    """Print Grafana's dashboard, to be imported there, or Prometheus' alert rules, to be loaded by rule_files."""
    from nearfar.cli.assets.monitoring import read_part

    click.echo(read_part(part), nl=False)


@main.command(name="example")
@click.argument("name", type=click.Choice(list(NAMES)))
def print_example(name: str) -> None:
    """Print settings for a desk or for a service, or nginx's for several servers, to start from."""
    click.echo(read_example(name), nl=False)


@main.command()
@click.argument("page", required=False, type=click.Choice(list(PAGES)))
def docs(page: str | None) -> None:
    """Show PAGE of the manual, or list the pages. A running server has them under /docs/manual."""
    if page:
        click.echo_via_pager(read_page(page))
    else:
        click.echo("\n".join(f"{name:<15}{about}" for name, about in PAGES.items()))


def _settings(models: tuple[str, ...], file: Path | None, said: dict[str, object]) -> Settings:
    """Load the settings, or end with one sentence and exit code 2."""
    argv = {name: value for name, value in said.items() if value is not None}
    if models:
        argv["models"] = [{"name": name} for name in models]
    try:
        return load_settings(argv, file=file)
    except SetupError as error:
        raise click.UsageError(str(error)) from error
