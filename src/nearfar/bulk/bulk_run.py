"""Runs a model over all rows of the input, block by block, and writes the output once all are done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from nearfar.bulk.choices import Options, OutputDtype
from nearfar.bulk.models import Model
from nearfar.bulk.partial_results import Array, BadRow, Checkpoint, Done, Record
from nearfar.bulk.sources import FAULTS, InputRow, RowReader
from nearfar.bulk.writers import write_output
from nearfar.core.errors import SetupError
from nearfar.core.types import FloatArray
from nearfar.serving.postprocess.quantization import default_range, quantize

TOO_LONG = "too long"
_BLOCK_ROWS, _BLOCK_CHARACTERS = 4096, 4_000_000
_KINDS = {*FAULTS, TOO_LONG}
_STORED: dict[OutputDtype, str] = {"float32": "float32", "float16": "float16", "int8": "int8", "binary": "uint8"}


class _Piece(Struct, frozen=True):
    """A row, or a chunk of one."""

    at: int  # of the row in the input
    record: Record
    texts: tuple[str, ...]
    fault: str = ""


class BulkRun:
    """Runs a command from where its checkpoint is to the end. ``report`` is called after each block."""

    def __init__(
        self, reader: RowReader, model: Model, checkpoint: Checkpoint, options: Options, report: Callable[[Done], None]
    ) -> None:
        self._rows = islice(reader.rows(), checkpoint.done.rows_read, None)
        self._model = model
        self._checkpoint = checkpoint
        self._options = options
        self._report = report

    async def run(self) -> list[Path]:
        """Run, and return the files that were written. Raises SetupError, for a bad row too if those fail."""
        block = await asyncio.to_thread(_take, self._rows)
        while block:
            reading = asyncio.create_task(asyncio.to_thread(_take, self._rows))
            try:
                await self._run_block(block)
                self._report(self._checkpoint.done)
            finally:
                block = await reading
        if not self._checkpoint.done.rows_written:
            raise SetupError("no row of the input has a text that can be used")
        return await asyncio.to_thread(write_output, self._options.out, self._checkpoint, self._options.layout)

    async def _run_block(self, block: Sequence[InputRow]) -> None:
        before = self._checkpoint.done
        pieces = [piece for at, row in enumerate(block, before.rows_read) for piece in await self._split(at, row)]
        good = [piece for piece in pieces if not piece.fault]
        faults = {id(piece): piece.fault for piece in pieces if piece.fault}
        tokens, cut, vectors = 0, 0, np.zeros((0, 0), np.float32)
        if good:
            found = await self._model.compute([piece.texts for piece in good])
            faults |= {id(good[at]): why for at, why in found.faults.items()}
            if self._options.refuses_cut:
                faults |= {id(good[at]): TOO_LONG for at, is_cut in enumerate(found.cut) if is_cut}
            vectors, tokens, cut = found.vectors, found.tokens, sum(found.cut)
        vectors = vectors[[id(piece) not in faults for piece in good]]
        bad = [BadRow(piece.at, piece.record.id, faults[id(piece)]) for piece in pieces if id(piece) in faults]
        if bad and self._options.on_bad == "fail":
            raise SetupError(
                f"row {bad[0].row} (id {bad[0].id}) is bad: {bad[0].reason}; fix it, or use --on-bad skip or empty. "
                "What is done is kept: the same command goes on there"
            )
        kept = [piece for piece in pieces if id(piece) not in faults or self._options.on_bad == "empty"]
        records = [replace(piece.record, has_vector=id(piece) not in faults) for piece in kept]
        stored = self._convert(vectors)
        done = replace(
            before,
            rows_read=before.rows_read + len(block),
            rows_written=before.rows_written + len(records),
            tokens=before.tokens + tokens,
            cut=before.cut + cut,
            bad=dict(Counter(before.bad) + Counter(_kind(one.reason) for one in bad)),
            has_text_ids=before.has_text_ids or any(isinstance(record.id, str) for record in records),
            width=stored.shape[1] if len(stored) else before.width,
            dtype=_STORED[self._options.dtype],
        )
        await asyncio.to_thread(self._checkpoint.append, stored, records, bad, done)

    async def _split(self, at: int, row: InputRow) -> list[_Piece]:
        """Return the row, or its chunks."""
        text = row.texts[-1] if row.texts and self._options.keeps_text else None
        if row.fault or self._options.chunk is None:
            return [_Piece(at, Record(row.id, text=text), row.texts, row.fault)]
        spans = await self._model.split(row.texts[0], self._options.chunk)
        parts = [(start, stop, row.texts[0][start:stop]) for start, stop in spans]
        return [_Piece(at, Record(row.id, start, stop, part if text else None), (part,)) for start, stop, part in parts]

    def _convert(self, vectors: FloatArray) -> Array:
        """Return the vectors as they are stored."""
        if not len(vectors) or self._options.dtype == "float32":
            return vectors
        if self._options.dtype == "float16":
            return vectors.astype(np.float16)
        if self._options.dtype == "binary":
            return quantize(vectors, "ubinary", None)
        return quantize(vectors, "int8", self._model.int8_range or default_range(vectors.shape[1]))


def _kind(reason: str) -> str:
    """Return what a bad row is counted as: a model's reason may have the row's own numbers."""
    return reason if reason in _KINDS else "refused"


def _take(rows: Iterator[InputRow]) -> list[InputRow]:
    """Return the next block: its bounds depend on the rows alone, so that a block is the same each time."""
    block: list[InputRow] = []
    size = 0
    for row in islice(rows, _BLOCK_ROWS):
        block.append(row)
        size += sum(map(len, row.texts))
        if size > _BLOCK_CHARACTERS:
            break
    return block
