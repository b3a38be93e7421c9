"""The command ``nearfar`` and its subcommands: options become settings, errors become one line and an exit code."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, get_args

import click
from click.shell_completion import get_completion_class

import nearfar
from nearfar.cli import bulk_commands
from nearfar.cli.assets import EXAMPLES, MONITORING, read_asset
from nearfar.cli.batch_command import batch
from nearfar.cli.hints import HintingGroup
from nearfar.cli.keys_command import keys
from nearfar.cli.models import commands as model_commands
from nearfar.cli.options import engine_options, read_settings, refuse_workers
from nearfar.cli.service_command import service
from nearfar.core.environment import configure_openmp
from nearfar.core.errors import NearfarError
from nearfar.docs import PAGES, read_page
from nearfar.process.channel import WorkerConfig, receive_config
from nearfar.process.child import Start
from nearfar.process.supervisor import supervise

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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


main.add_command(batch)
main.add_command(keys)
main.add_command(service)
for _command in (
    model_commands.check,
    model_commands.pull,
    model_commands.list_models,
    model_commands.convert,
    model_commands.unpickle,
    bulk_commands.embed,
    bulk_commands.rerank,
):
    main.add_command(_command)


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
        settings = read_settings((*models, *more), file, options)
        arguments = sys.argv[2:]
        program = sys.orig_argv[1 : -len(arguments) or None]  # with the interpreter's own options
        sys.exit(supervise(settings, [sys.executable, *program, "--worker"], arguments))
    import uvloop

    from nearfar.process.worker import run_worker  # imports litestar and granian: 0.3 s that --help doesn't need

    listeners, supervisor, start = worker
    if start == "restart":
        served = receive_config(supervisor)
    else:
        served = WorkerConfig(settings=read_settings((*models, *more), file, options))
    sys.exit(uvloop.run(run_worker(served, [int(file) for file in listeners.split(",")], supervisor, start)))


@main.command(name="try")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--model", metavar="MODEL", help="Model to use.  [default: that of the settings]")
@engine_options
def try_texts(texts: tuple[str, ...], model: str | None, file: Path | None, **options: object) -> None:
    """Print how similar the TEXTs are to each other.

    A running server shows more at its address, in a browser.
    """
    from nearfar.cli.try_commands import compare_texts

    if len(texts) == 1:
        raise click.UsageError('name two texts or more, as in: nearfar try "a cat" "a kitten"')
    asyncio.run(_print(compare_texts(read_settings((model,) if model else (), file, options), texts)))


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
    asyncio.run(_print(rank_documents(read_settings((model,) if model else (), file, options), query, found, top)))


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands in SHELL.

    It completes options, too. For bash, add this line to ~/.bashrc: eval "$(nearfar completion bash)"
    """
    kind = get_completion_class(shell)
    if kind:
        click.echo(kind(main, {}, "nearfar", "_NEARFAR_COMPLETE").source())


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
@click.argument("page", required=False, type=click.Choice(list(PAGES)), metavar="[PAGE]")
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
