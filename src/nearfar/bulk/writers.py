"""Writes vectors and their ids to a file of the kind that its name has. Constant memory."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from nearfar.bulk.choices import Layout
from nearfar.bulk.partial_results import Array, Checkpoint, Record, partial_folder, read_done
from nearfar.bulk.sources import import_pyarrow
from nearfar.core.errors import SetupError

_PARTIAL = ".new"


def check_output(path: Path, *, has_nulls: bool, is_float: bool, overwrites: bool = False) -> None:
    """Raise SetupError for a file that exists, can't be written here, or has no place for rows without numbers."""
    if path.suffix.lower() not in _WRITERS:
        raise SetupError(f"{path}: can't see what to write; name it {', '.join(_WRITERS)}")
    if path.is_dir() and path.suffix.lower() != ".lance":
        raise SetupError(f"{path} is a folder; name a file as --out")
    # After a crash, the output of the same command may exist.
    if path.exists() and not overwrites and not read_done(partial_folder(path)).written:
        raise SetupError(f"{path} exists; use --overwrite, or name another --out")
    if path.suffix.lower() == ".npy" and has_nulls and not is_float:
        raise SetupError(f"{path}: a .npy file of integers has no place for rows without numbers; use --on-bad skip")
    if path.suffix.lower() in {".parquet", ".lance"}:
        import_pyarrow()
    if path.suffix.lower() == ".lance":
        _import_lancedb()


def write_output(path: Path, checkpoint: Checkpoint, layout: Layout) -> list[Path]:
    """Write all results, and the list of bad rows. Return the files. After a crash, no file has only a part."""
    if not checkpoint.done.written:
        partial = path.with_name(f"{path.stem}{_PARTIAL}{path.suffix}")
        written = _WRITERS[path.suffix.lower()](partial, checkpoint, layout)
        if checkpoint.done.bad:
            written.append(path.with_name(f"{path.name}{_PARTIAL}.bad.jsonl"))
            checkpoint.keep_bad(written[-1])
        checkpoint.record_written(written)
    files = [path.with_name(name) for name in checkpoint.done.written]
    final = [file.with_name(file.name.replace(_PARTIAL, "", 1)) for file in files]
    for file, name in zip(files, final, strict=True):
        if file.exists():  # or it was renamed before a crash
            if name.is_dir():
                shutil.rmtree(name)
            file.replace(name)
    return final


def _beside(checkpoint: Checkpoint, layout: Layout, record: Record) -> dict[str, object]:
    """Return what goes beside a vector."""
    fields = {name: getattr(record, name) for name in layout.beside}
    return fields | {"id": str(record.id)} if checkpoint.done.has_text_ids else fields


def _spread(records: list[Record], vectors: Array) -> Iterator[tuple[Record, Array | None]]:
    """Yield each record with its vector, if it has one."""
    rows = iter(vectors)
    return ((record, next(rows) if record.has_vector else None) for record in records)


def _write_json(path: Path, checkpoint: Checkpoint, layout: Layout) -> list[Path]:
    encoder = msgspec.json.Encoder()
    is_score = layout.column == "score"
    with path.open("wb") as file:
        for records, vectors in checkpoint.results():
            lines = []
            for record, vector in _spread(records, vectors):
                numbers = None if vector is None else vector.tolist()
                value = numbers[0] if is_score and numbers else numbers
                lines.append({**_beside(checkpoint, layout, record), layout.column: value})
            file.write(encoder.encode_lines(lines))
    return [path]


def _write_npy(path: Path, checkpoint: Checkpoint, layout: Layout) -> list[Path]:
    """Write the vectors, and what goes beside them to a file of JSON lines."""
    done = checkpoint.done
    beside = path.with_suffix(".ids.jsonl")
    shape = (done.rows_written, done.width or 0)[: 2 if layout.column == "vector" else 1]
    dtype = np.dtype(done.dtype)
    encoder = msgspec.json.Encoder()
    with path.open("wb") as numbers, beside.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(numbers, header)
        for records, vectors in checkpoint.results():
            has = np.array([record.has_vector for record in records])
            part = vectors
            if not has.all():
                part = np.full((len(records), vectors.shape[1]), np.nan, dtype)
                part[has] = vectors
            numbers.write(part.data)
            file.write(encoder.encode_lines([_beside(checkpoint, layout, record) for record in records]))
    return [path, beside]


def _write_sqlite(path: Path, checkpoint: Checkpoint, layout: Layout) -> list[Path]:
    """Write a table of vectors as bytes, which the functions of sqlite-vec read."""
    path.unlink(missing_ok=True)
    is_score = layout.column == "score"
    database = sqlite3.connect(path)
    with database:
        database.execute(f"CREATE TABLE rows (id, start INTEGER, stop INTEGER, text TEXT, {layout.column})")
        for records, vectors in checkpoint.results():
            values = []
            for record, vector in _spread(records, vectors):
                fields = _beside(checkpoint, layout, record)
                number = None if vector is None else float(vector[0]) if is_score else vector.tobytes()
                values.append((*(fields.get(name) for name in ("id", "start", "stop", "text")), number))
            database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", values)
    database.close()
    return [path]


def _write_parquet(path: Path, checkpoint: Checkpoint, layout: Layout) -> list[Path]:
    _, parquet = import_pyarrow()
    batches = _arrow_batches(checkpoint, layout)
    first = next(batches)
    with parquet.ParquetWriter(path, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)
    return [path]


def _write_lance(path: Path, checkpoint: Checkpoint, layout: Layout) -> list[Path]:
    """Write a table of LanceDB: the folder of the file is the database."""
    pyarrow, _ = import_pyarrow()
    batches = _arrow_batches(checkpoint, layout)
    first = next(batches)

    def every() -> Iterator[Any]:
        yield first
        yield from batches

    reader = pyarrow.RecordBatchReader.from_batches(first.schema, every())
    _import_lancedb().connect(path.parent).create_table(path.stem, reader, mode="overwrite")
    return [path]


def _import_lancedb() -> Any:
    try:
        import lancedb
    except ImportError as error:
        raise SetupError(".lance needs a package: pip install lancedb") from error
    return lancedb


def _arrow_batches(checkpoint: Checkpoint, layout: Layout) -> Iterator[Any]:
    """Yield the results as record batches of Arrow; vectors as lists of a fixed size."""
    pyarrow, _ = import_pyarrow()
    done = checkpoint.done
    id_type = pyarrow.string() if done.has_text_ids else pyarrow.int64()
    for records, vectors in checkpoint.results():
        fields = [_beside(checkpoint, layout, record) for record in records]
        columns = {"id": pyarrow.array([one["id"] for one in fields], id_type)}
        for name, kind in (("start", pyarrow.int64()), ("stop", pyarrow.int64()), ("text", pyarrow.string())):
            if name in layout.beside:
                columns[name] = pyarrow.array([one[name] for one in fields], kind)
        has = np.array([record.has_vector for record in records])
        every = np.zeros((len(records), vectors.shape[1]), vectors.dtype)
        every[has] = vectors
        if layout.column == "score":
            columns[layout.column] = pyarrow.array(every[:, 0], mask=~has)
        else:
            flat = pyarrow.array(every.reshape(-1))
            missing = pyarrow.array(~has) if not has.all() else None
            columns[layout.column] = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=missing)
        yield pyarrow.RecordBatch.from_pydict(columns)


_WRITERS: dict[str, Callable[[Path, Checkpoint, Layout], list[Path]]] = {
    ".parquet": _write_parquet,
    ".npy": _write_npy,
    ".jsonl": _write_json,
    ".sqlite": _write_sqlite,
    ".db": _write_sqlite,
    ".lance": _write_lance,
}
