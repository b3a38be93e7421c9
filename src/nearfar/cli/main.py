"""The command ``nearfar`` and its subcommands: options become settings, errors become one line and an exit code."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, get_args

import click
from click.shell_completion import get_completion_class

import nearfar
from nearfar.cli.assets import EXAMPLES, MONITORING, read_asset
from nearfar.cli.catalog import CatalogLanguage, CatalogTask, list_catalog
from nearfar.cli.hints import HintingGroup
from nearfar.cli.keys_command import keys
from nearfar.cli.options import config_option, engine_options, folder_options, hub_options, refuse_workers
from nearfar.cli.service_command import service
from nearfar.core.environment import check_environment, configure_openmp
from nearfar.core.errors import NearfarError, SetupError
from nearfar.core.settings import load_settings
from nearfar.docs import PAGES, read_page
from nearfar.process.channel import WorkerConfig, receive_config
from nearfar.process.child import Start
from nearfar.process.supervisor import supervise

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nearfar.core.settings import Settings


class _Commands(HintingGroup):
    """The subcommands. A NearfarError becomes one line on standard error and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except NearfarError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(nearfar.__version__, "-V", "--version", prog_name="nearfar")
def main() -> None:
    """Serve embedding and rerank models to OpenAI, Cohere and other clients.

    Each option of serve is a setting: --port can also be the variable NEARFAR_PORT, or port in a TOML file. The manual
    has all settings: nearfar docs configuration
    """
    configure_openmp()


main.add_command(keys)
main.add_command(service)


@main.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--model", "more", multiple=True, metavar="MODEL", help="Same as MODEL; can be repeated.")
@engine_options
@click.option("--host", help="Address to listen on; one that others can reach requires a key.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 picks a free one.  [default: 9000]")
@click.option(
    "--api-key", help="Key that clients must send. Prefer NEARFAR_API_KEY: other users can see command lines."
)
@click.option("--no-auth", is_flag=True, default=None, help="Serve other machines without a key.")
@click.option("--tls-cert-file", metavar="FILE", help="PEM file of the certificate, and of its issuers; serves HTTPS.")
@click.option("--tls-key-file", metavar="FILE", help="PEM file of the certificate's private key.")
@click.option("--on-overflow", metavar="truncate|error", help="What to do with texts over a model's limit.")
@click.option(
    "--no-verify",
    "verify",
    flag_value=False,
    default=None,
    help="Don't compare models with the libraries they are from.",
)
@click.option("--threads", type=int, help="CPU threads that the models use.  [default: all cores]")
@click.option("--load", metavar="start|demand", help="Load models at the start, or at the first request.")
@click.option("--memory-budget", metavar="SIZE", help="Memory for the weights of all loaded models, such as 8GB.")
@click.option("--log-format", metavar="auto|human|json", help="Format of the log; auto is human on a terminal.")
@click.option("--workers", type=int, default=1, hidden=True, expose_value=False, callback=refuse_workers)
@click.option("--worker", type=(str, int, click.Choice(get_args(Start))), hidden=True)  # how the supervisor starts one
def serve(
    models: tuple[str, ...],
    more: tuple[str, ...],
    file: Path | None,
    worker: tuple[str, int, Start] | None,
    **options: object,
) -> None:
    """Serve MODELs to clients.

    A MODEL is the built-in all-MiniLM-L6-v2, a folder, or a Hugging Face name (owner/model@revision).
    """
    if worker is None:
        settings = _load_settings((*models, *more), file, options)
        arguments = sys.argv[2:]
        program = sys.orig_argv[1 : -len(arguments) or None]  # with the interpreter's own options
        sys.exit(supervise(settings, [sys.executable, *program, "--worker"], arguments))
    import uvloop

    from nearfar.process.worker import run_worker  # imports litestar and granian: 0.3 s that --help doesn't need

    listeners, supervisor, start = worker
    if start == "restart":
        served = receive_config(supervisor)
    else:
        served = WorkerConfig(settings=_load_settings((*models, *more), file, options))
    sys.exit(uvloop.run(run_worker(served, [int(file) for file in listeners.split(",")], supervisor, start)))


@main.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@engine_options
def check(models: tuple[str, ...], file: Path | None, **options: object) -> None:
    """Load each MODEL, test it, and print what it is.

    The test ranks known sentences. The exit code is 1 if a model ranks them wrong.
    """
    from nearfar.cli.check import check_models

    passed = asyncio.run(check_models(_load_settings(models, file, options), click.echo))
    sys.exit(0 if passed else 1)


@main.command(name="try")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--model", metavar="MODEL", help="Model to use.  [default: that of the settings]")
@engine_options
def try_texts(texts: tuple[str, ...], model: str | None, file: Path | None, **options: object) -> None:
    """Print how similar the TEXTs are to each other.

    A running server shows more at its address, in a browser.
    """
    from nearfar.cli.try_commands import compare_texts

    asyncio.run(_print(compare_texts(_load_settings((model,) if model else (), file, options), texts)))


@main.command()
@click.argument("query")
@click.argument("documents", type=click.File(encoding="utf-8-sig", errors="replace"), metavar="FILE")
@click.option("--model", metavar="MODEL", help="Model to use.  [default: that of the settings]")
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Documents to print.")
@engine_options
def rank(query: str, documents: TextIO, model: str | None, top: int, file: Path | None, **options: object) -> None:
    """Sort the lines of FILE by how well they answer QUERY.

    The best are printed. FILE can be - for the standard input.
    """
    from nearfar.cli.try_commands import rank_documents

    found = [line.strip() for line in documents if line.strip()]
    if not found:
        raise click.UsageError(f"{documents.name} has no lines to rank")
    asyncio.run(_print(rank_documents(_load_settings((model,) if model else (), file, options), query, found, top)))


@main.command()
@click.argument("model")
@hub_options
def pull(model: str, file: Path | None, **options: object) -> None:
    """Download MODEL from the hub, and check that it can be served."""
    from nearfar.cli.check import describe_files

    for line in describe_files(_load_settings((model,), file, options)):
        click.echo(line)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands in SHELL.

    It completes options, too. For bash, add this line to ~/.bashrc: eval "$(nearfar completion bash)"
    """
    kind = get_completion_class(shell)
    if kind:
        click.echo(kind(main, {}, "nearfar", "_NEARFAR_COMPLETE").source())


@main.command(name="models")
@click.option("--catalog", is_flag=True, help="List models worth serving instead.")
@click.option("--task", type=click.Choice(get_args(CatalogTask)), help="Only the catalog's models of this task.")
@click.option("--language", type=click.Choice(get_args(CatalogLanguage)), help="Only its models of this language.")
@config_option
def list_models(catalog: bool, task: str | None, language: str | None, file: Path | None) -> None:
    """List models on this disk and engines that run here."""
    from nearfar.cli.check import list_engines, list_local_models

    settings = _load_settings((), file, {})
    if catalog or task or language:
        lines = [*list_catalog(task, language, settings.device)]
    else:
        lines = [*list_local_models(settings), "", *list_engines(settings.device)]
    click.echo("\n".join(lines))


@main.command()
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
    from nearfar.cli.convert import convert_model

    quantization = {name: options.pop(name) for name in ("bits", "mode", "group_size")}
    for line in convert_model(_load_settings((model,), file, options), out, **quantization):
        click.echo(line)


@main.command()
@click.argument("model")
@folder_options
def unpickle(model: str, out: Path | None, file: Path | None, **options: object) -> None:
    """Convert MODEL's pickled weights to safetensors.

    The result is a new folder. No code in the pickles is run.
    """
    from nearfar.cli.convert import unpickle_model

    for line in unpickle_model(_load_settings((model,), file, options), out):
        click.echo(line)


@main.command()
@click.argument("part", type=click.Choice(list(MONITORING)))
def monitoring(part: str) -> None:
    """Print a Grafana dashboard, or Prometheus rules.

    Import the dashboard in Grafana. Load the rules with rule_files in Prometheus.
    """
    click.echo(read_asset(MONITORING[part]), nl=False)


@main.command()
@click.argument("name", type=click.Choice(list(EXAMPLES)))
def example(name: str) -> None:
    """Print example settings, or an nginx configuration."""
    click.echo(read_asset(EXAMPLES[name]), nl=False)


@main.command()
@click.argument("page", required=False, type=click.Choice(list(PAGES)))
def docs(page: str | None) -> None:
    """Show PAGE of the manual, or list the pages.

    A running server has them under /docs/manual.
    """
    if page:
        click.echo_via_pager(read_page(page))
    else:
        click.echo("\n".join(f"{name:<15}{about}" for name, about in PAGES.items()))


async def _print(lines: AsyncIterator[str]) -> None:
    async for line in lines:
        click.echo(line)


def _load_settings(models: tuple[str, ...], file: Path | None, options: dict[str, object]) -> Settings:
    """Load the settings. Raises UsageError, which ends the program with exit code 2."""
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
