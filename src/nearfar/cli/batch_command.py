"""The command ``batch``: a file of requests for OpenAI's Batch API, answered in this process as a server answers it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
import msgspec

from nearfar.cli.options import engine_options, read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nearfar.batches.records import StoredBatch
    from nearfar.bulk.offline_batch import BatchFiles
    from nearfar.core.settings import Settings
    from nearfar.telemetry.events import Event

_path = click.Path(path_type=Path)
_STDOUT = Path("-")
_LINES_FAILED = 3  # the exit code


@click.command()
@click.argument("source", type=_path, metavar="IN")
@click.argument("out", type=_path, metavar="OUT")
@click.option("--errors", type=_path, help="File of the lines that failed.  [default: OUT.errors.jsonl for OUT.jsonl]")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--model", "models", multiple=True, metavar="MODEL", help="Model to open; can be repeated.")
@click.option("--on-overflow", metavar="truncate|error", help="What to do with texts over a model's limit.")
@click.option("--threads", type=int, help="CPU threads to use.  [default: all cores]")
@engine_options
def batch(source: Path, out: Path, errors: Path | None, models: tuple[str, ...], **options: Any) -> None:
    """Answer a file of OpenAI's Batch API without a server.

    The answers go to OUT, in the order of IN. Either can be - for a pipe, and IN can end in .gz. The same command goes
    on where it was stopped. It ends with 3 if lines failed.
    """
    from nearfar.bulk.offline_batch import BatchFiles

    overwrite = options.pop("overwrite")
    settings = read_settings(models, options.pop("file"), options)
    if out != _STDOUT:
        errors = errors or out.with_name(f"{out.stem}.errors{out.suffix}")
        sys.exit(_run(settings, BatchFiles(source, out, errors, overwrite), str(out)))
    if not errors:
        raise click.UsageError("with - as OUT, name the file of the lines that failed: --errors FILE")
    with TemporaryDirectory() as folder:
        stored = Path(folder, "out.jsonl")
        status = _run(settings, BatchFiles(source, stored, errors, overwrite), "the standard output")
        with stored.open("rb") as answers:
            shutil.copyfileobj(answers, sys.stdout.buffer)
    sys.exit(status)


def _run(settings: Settings, files: BatchFiles, out: str) -> int:
    """Run a batch to its end. Return the exit code."""
    from nearfar.bulk.offline_batch import finish, prepare
    from nearfar.dialects.openai.batch.batches import ENDPOINTS

    stored = asyncio.run(_answer(settings, files, prepare(files, ENDPOINTS)))
    finish(files, stored)
    counts, tokens = stored.batch.request_counts, stored.batch.usage.total_tokens
    click.echo(
        f"{counts.completed:,} lines of {counts.total:,} answered, {counts.failed:,} failed, {tokens:,} tokens: "
        f"{out}{f', {files.errors}' if counts.failed else ''}",
        err=True,
    )
    return _LINES_FAILED if counts.failed else 0


async def _answer(settings: Settings, files: BatchFiles, stored: StoredBatch) -> StoredBatch:
    from nearfar.bulk.offline_batch import answer_all
    from nearfar.bulk.partial_results import Done
    from nearfar.bulk.progress import ProgressLine
    from nearfar.telemetry.events import BatchLinesStored

    counts = stored.batch.request_counts
    completed, failed = counts.completed, counts.failed
    line = ProgressLine(sys.stderr, lambda: (completed + failed) / counts.total, "lines")

    def observe(event: Event) -> None:
        nonlocal completed, failed
        if isinstance(event, BatchLinesStored):
            completed, failed = completed + event.completed, failed + event.failed
        line.show(Done(rows_read=completed + failed, bad={"failed": failed} if failed else {}))

    async with _open_app(settings) as state:
        infos = state.fleet.infos()
        models = [f"{info.name}@{info.revision} ({info.source}, {info.engine}, {info.dtype})" for info in infos]
        line.show(Done(rows_read=completed + failed))
        try:
            return await answer_all(
                files, stored, state.lines.answer, f"{', '.join(models)}; on_overflow {settings.on_overflow}", observe
            )
        finally:
            line.end()


@asynccontextmanager
async def _open_app(settings: Settings) -> AsyncIterator[Any]:
    """Open the models of the server's application. Yield its state."""
    from nearfar.bulk.models import without_timeout
    from nearfar.http.app import create_app

    models = tuple(msgspec.structs.replace(model, load="start") for model in settings.models)
    # The limits of one request stay, so that a line has the answer of the server.
    settings = msgspec.structs.replace(
        without_timeout(settings),
        models=models,
        while_loading="wait",
        api_key=None,
        api_keys_file=None,
        otlp_endpoint=None,
    )
    state = create_app(settings).state
    state.fleet.start()
    try:
        await state.fleet.opened()
        yield state
    finally:
        await state.fleet.close()
        state.service.close()
