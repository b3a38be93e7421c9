"""The commands ``embed`` and ``rerank``: whole tables through a model, by one command that can be run again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec

from nearfar.bulk.choices import OnBad, Options, OutputDtype
from nearfar.bulk.sources import KINDS, Columns, RowReader, SourceFile, find_files
from nearfar.cli.options import engine_options, read_settings
from nearfar.core.errors import SetupError

if TYPE_CHECKING:
    from nearfar.bulk.models import Model
    from nearfar.bulk.partial_results import Done
    from nearfar.core.settings import Settings

_path = click.Path(path_type=Path)
_OPTIONS: tuple[Callable[..., Any], ...] = (
    click.argument("inputs", nargs=-1, required=True, type=_path, metavar="INPUT..."),
    click.option("--out", required=True, type=_path, help="File to write: .parquet, .npy, .jsonl, .sqlite or .lance."),
    click.option("--overwrite", is_flag=True, help="Replace the file of --out."),
    click.option("--model", metavar="MODEL", help="Model to use.  [default: that of the settings]"),
    click.option("--format", "kind", type=click.Choice(KINDS), help="What the input is.  [default: by its suffix]"),
    click.option("--id-column", metavar="NAME", help="Column of ids.  [default: rows are numbered]"),
    click.option(
        "--on-bad",
        type=click.Choice(get_args(OnBad)),
        default="fail",
        show_default=True,
        help="What to do with rows that have no text, aren't UTF-8, or are refused.",
    ),
    click.option("--with-text", is_flag=True, help="Write the texts, too."),
    click.option("--on-overflow", metavar="truncate|error", help="What to do with texts over the model's limit."),
    click.option("--threads", type=int, help="CPU threads to use.  [default: all cores]"),
    click.option("--url", help="Server to use instead of this process, such as http://127.0.0.1:9000/v1."),
    click.option("--url-key", metavar="KEY", envvar="OPENAI_API_KEY", help="Its key.  [default: OPENAI_API_KEY]"),
    engine_options,
)


def _table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that both commands have."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)


@click.command()
@_table_options
@click.option("--column", metavar="NAME", help="Column of the texts.  [default: text, or the only one]")
@click.option("--prompt", metavar="NAME", help="Prompt of the model that goes before each text.")
@click.option("--dimensions", type=click.IntRange(1), help="Numbers of a vector.  [default: all]")
@click.option("--output-dtype", type=click.Choice(get_args(OutputDtype)), default="float32", show_default=True,
              help="How numbers are written; binary is one bit each.")  # fmt: skip
@click.option("--chunk", type=click.IntRange(1), metavar="TOKENS", help="Divide texts into chunks of so many tokens.")
def embed(
    inputs: tuple[Path, ...], column: str | None, output_dtype: OutputDtype, chunk: int | None, **options: Any
) -> None:
    """Embed every row of INPUTs into one file.

    An INPUT is a file, a folder, or - for the standard input. The same command goes on where it was stopped.
    """
    texts = (column,) if column else ()
    output = {"column": "vector", "dtype": output_dtype, "chunk": chunk}
    _run(inputs, Columns(texts, options.pop("id_column")), output, options)


@click.command()
@_table_options
@click.option("--query-column", metavar="NAME", default="query", show_default=True, help="Column of the queries.")
@click.option("--column", metavar="NAME", default="text", show_default=True, help="Column of the documents.")
def rerank(inputs: tuple[Path, ...], query_column: str, column: str, **options: Any) -> None:
    """Score the query and document of every row of INPUTs.

    The scores go into one file. An INPUT is a file, a folder, or - for the standard input. The same command goes on
    where it was stopped.
    """
    options |= {"prompt": None, "dimensions": None}
    _run(inputs, Columns((query_column, column), options.pop("id_column")), {"column": "score"}, options)


def _run(inputs: Sequence[Path], columns: Columns, output: dict[str, Any], options: dict[str, Any]) -> None:
    """Run a command. The options that are left after its own are those of the settings."""
    from nearfar.bulk.models import unlimited
    from nearfar.bulk.partial_results import writing
    from nearfar.bulk.writers import check_output

    _refuse_local_options(options)
    files = find_files(inputs, options.pop("kind"))
    output |= {"out": options.pop("out"), "on_bad": options.pop("on_bad"), "keeps_text": options.pop("with_text")}
    chosen = {name: options.pop(name) for name in ("url", "url_key", "model", "prompt", "dimensions")}
    file, overwrites = options.pop("file"), options.pop("overwrite")
    settings = unlimited(read_settings((chosen["model"],) if chosen["model"] else (), file, options))
    on_overflow = settings.models[0].on_overflow or settings.on_overflow
    chosen["refuses_cut"] = on_overflow == "error"
    run = msgspec.convert(output | {"refuses_cut": chosen["refuses_cut"]}, Options)
    is_float = run.dtype.startswith("float")
    with writing(run.out):
        check_output(run.out, has_nulls=run.on_bad == "empty", is_float=is_float, overwrites=overwrites)
        _refuse_own_input(inputs, files, run.out)
    reader = RowReader(files, columns)
    asyncio.run(_compute(settings, reader, run, chosen))


def _refuse_own_input(inputs: Sequence[Path], files: Sequence[SourceFile], out: Path) -> None:
    """Raise SetupError for an output that is an input, or would be one the next time."""
    if out.resolve() in {file.path.resolve() for file in files}:
        raise SetupError(f"{out} is an input, too; name another --out")
    folder = next((path for path in inputs if path.is_dir() and out.resolve().is_relative_to(path.resolve())), None)
    if folder:
        raise SetupError(f"{out} is in the folder {folder}, which is an input; name an --out elsewhere")


def _refuse_local_options(options: dict[str, Any]) -> None:
    """Raise UsageError for an option that a server ignores."""
    names = {"engine": "--engine", "device": "--device", "dtype": "--dtype", "threads": "--threads", "file": "--config"}
    for name, option in names.items():
        if options["url"] and options[name] is not None:
            raise click.UsageError(f"{option} is for a model of this process; leave it out with --url")


async def _compute(settings: Settings, reader: RowReader, options: Options, chosen: dict[str, Any]) -> None:
    from nearfar.bulk.partial_results import writing

    async with _open_model(settings, chosen) as model:
        probe = ("probe", "probe") if options.column == "score" else ("probe",)
        await model.run([probe])  # raises what is wrong with all rows
        with writing(options.out):
            done, files = await _run_all(model, reader, options)
    click.echo(
        f"{done.rows_written:,} rows of {done.rows_read:,}, {done.tokens:,} tokens: {', '.join(map(str, files))}"
    )
    if done.cut:
        click.echo(f"{done.cut:,} texts were cut at the model's limit; --on-overflow error makes them bad rows")
    for reason, count in sorted(done.bad.items()):
        click.echo(f"{count:,} bad rows: {reason}")


async def _run_all(model: Model, reader: RowReader, options: Options) -> tuple[Done, list[Path]]:
    """Run from where the checkpoint is to the end. Return what was done, and the files."""
    from nearfar.bulk.bulk_run import BulkRun
    from nearfar.bulk.partial_results import Checkpoint, partial_folder
    from nearfar.bulk.progress import ProgressLine

    job = {"input": reader.identity, **model.identity, **_identity(options)}
    checkpoint = Checkpoint(partial_folder(options.out), job)
    if checkpoint.done.written:
        click.echo("already complete: only the last step is repeated")
    line = ProgressLine(sys.stderr, lambda: reader.share)
    try:
        files = await BulkRun(reader, model, checkpoint, options, line.show).run()
    except BaseException:
        checkpoint.close()
        raise
    finally:
        line.end()
    checkpoint.remove()
    return checkpoint.done, files


def _identity(options: Options) -> dict[str, object]:
    """Return the options that results depend on. A command that ended at a bad row may go on without it."""
    fields: dict[str, object] = msgspec.structs.asdict(options)
    return {name: value for name, value in fields.items() if name not in {"out", "on_bad"}}


@asynccontextmanager
async def _open_model(settings: Settings, chosen: dict[str, Any]) -> AsyncIterator[Model]:
    """Open the model of this process, or the client of a server."""
    from nearfar.bulk.models import LocalModel
    from nearfar.bulk.remote_model import RemoteModel, open_client
    from nearfar.cli.models.check import open_service

    prompt, dimensions = chosen["prompt"], chosen["dimensions"]
    if chosen["url"]:
        if prompt:
            raise SetupError("--prompt is for a model of this process; with --url, write --model MODEL:PROMPT")
        if chosen["refuses_cut"]:
            raise SetupError("--on-overflow error is for a model of this process; a server decides what it cuts")
        async with open_client(chosen["url"], chosen["url_key"]) as client:
            yield RemoteModel(client, chosen["model"], dimensions=dimensions)
        return
    async with open_service(settings) as (fleet, service):
        model = LocalModel(service, fleet.infos()[0], prompt=prompt, dimensions=dimensions)
        model.on_overflow = "error" if chosen["refuses_cut"] else "truncate"
        yield model
