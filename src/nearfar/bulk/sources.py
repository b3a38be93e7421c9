"""Rows of tables and texts: lines, JSON lines, CSV and parquet, in files, folders and the standard input."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from glob import glob
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal, cast, get_args

import msgspec
from msgspec import Struct

from nearfar.core.errors import SetupError

Kind = Literal["lines", "jsonl", "csv", "tsv", "text", "parquet"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_SUFFIXES: dict[str, Kind] = {
    ".txt": "lines",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".md": "text",
    ".markdown": "text",
    ".parquet": "parquet",
}
_WITHOUT_COLUMNS: tuple[Kind, ...] = ("lines", "text")
_GZIP = ".gz"
NO_ID = "no id that is text or a whole number"
FAULTS = ("null", "empty", "not text", "not UTF-8", "not JSON", "not an object", NO_ID)
_STDIN = Path("-")
_PARQUET_ROWS = 4096
_MAX_FIELD = 1 << 30  # characters of a field of CSV
_INTEGERS = range(-(1 << 63), 1 << 63)  # that every kind of output has
_MAX_WORDS = 200  # characters of column names in an error

Values = tuple[object, ...]  # of the columns that are read
_Rows = Iterator[tuple[object, Values]]  # an id, None without one, and the values


class SourceFile(Struct, frozen=True):
    """A file of rows."""

    path: Path
    kind: Kind
    size: int  # in bytes; 0 for the standard input


class Columns(Struct, frozen=True):
    """Which columns are read. No ``texts`` means the column ``text``, or the only one."""

    texts: tuple[str, ...] = ()
    id: str | None = None


class InputRow(Struct, frozen=True):
    """A row: its texts, or the fault for which it can't be read."""

    id: int | str
    texts: tuple[str, ...]
    fault: str = ""


def find_files(inputs: Sequence[Path], kind: Kind | None = None) -> list[SourceFile]:
    """Return the files that are named, and those in the folders that are named, in a fixed order.

    A name that no file has may be a pattern: a shell doesn't expand one in quotes.

    A file's kind is that of its suffix unless ``kind`` is set. Raises SetupError for a file that is missing, and for
    one of no known kind unless it is in a folder.
    """
    found: list[SourceFile] = []
    for path in chain.from_iterable(map(_expand, inputs)):
        if path == _STDIN and kind == "parquet":
            raise SetupError("parquet can't be read from a pipe; name a file")
        if path == _STDIN:
            found.append(SourceFile(path, kind or "lines", 0))
        elif path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.is_file()]
            found += [_source(file, kind or _kind_of(file)) for file in inside if kind or _suffix(file) in _SUFFIXES]
        elif path.is_file():
            found.append(_source(path, kind or _kind_of(path)))
        else:
            raise SetupError(f"{path}: no such file or folder")
    if not found:
        raise SetupError(
            f"{inputs[0]} has no files that can be read; known are {', '.join(_SUFFIXES)}, also as {_GZIP}"
        )
    return found


def _expand(path: Path) -> Sequence[Path]:
    is_name = path == _STDIN or path.exists()
    matches = [] if is_name else sorted(glob(str(path), recursive=True))  # noqa: PTH207 — Path.glob is relative
    return [*map(Path, matches)] or [path]


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() == _GZIP else path).suffix.lower()


def _kind_of(path: Path) -> Kind:
    try:
        return _SUFFIXES[_suffix(path)]
    except KeyError:
        raise SetupError(f"{path}: can't see what this is; use --format {', '.join(KINDS)}") from None


def _source(path: Path, kind: Kind) -> SourceFile:
    return SourceFile(path, kind, path.stat().st_size)


class RowReader:
    """Reads all rows of some files, one after the other."""

    def __init__(self, files: Sequence[SourceFile], columns: Columns) -> None:
        self._files = files
        self._columns = columns
        self._done_bytes = 0
        self._file: IO[bytes] | None = None
        self.total_bytes = sum(file.size for file in files)

    @property
    def identity(self) -> list[object]:
        """Return what the rows depend on: the files with their sizes, and the columns."""
        return [[str(file.path), file.kind, file.size] for file in self._files] + [msgspec.to_builtins(self._columns)]

    @property
    def share(self) -> float | None:
        """Return how much of the input was read, from 0 to 1; None if its size is unknown."""
        if not self.total_bytes:
            return None
        now = self._file.tell() if self._file and not self._file.closed else 0
        return min((self._done_bytes + now) / self.total_bytes, 1.0)

    def rows(self) -> Iterator[InputRow]:
        """Yield all rows, numbered from 0 without a column of ids; with several files, after the file's name.

        Raises SetupError for a file that isn't what its kind is, and for one without the columns.
        """
        for file in self._files:
            place = f"{file.path}:" if len(self._files) > 1 else ""
            has_ids = self._columns.id is not None and file.kind not in _WITHOUT_COLUMNS
            number = 0
            try:
                for value, values in self._read(file):
                    numbered = f"{place}{number}" if place else number
                    own = _id_of(value) if has_ids else numbered
                    row = _row(numbered if own is None else own, values, len(self._columns.texts))
                    yield InputRow(numbered, (), row.fault or NO_ID) if own is None else row
                    number += 1
            except (OSError, EOFError, csv.Error, ValueError, zlib.error) as error:
                after = f" after row {number - 1}" if number else ""
                raise SetupError(f"{file.path}: can't be read{after} ({error})") from error
            self._done_bytes += file.size

    def _read(self, source: SourceFile) -> _Rows:
        if source.kind in _WITHOUT_COLUMNS and len(self._columns.texts) > 1:
            wanted = " and ".join(self._columns.texts)
            raise SetupError(f"{source.path} has no columns; {wanted} are read from JSON lines, CSV or parquet: "
                             "use --format, or see nearfar docs tables")  # fmt: skip
        readers: dict[Kind, Callable[[IO[bytes], str], _Rows]] = {
            "lines": _read_lines,
            "jsonl": self._read_json,
            "csv": self._read_csv,
            "tsv": self._read_csv,
            "text": _read_text,
            "parquet": self._read_parquet,
        }
        if source.path == _STDIN:
            yield from readers[source.kind](sys.stdin.buffer, "the standard input")
            return
        with source.path.open("rb") as self._file:
            is_packed = source.path.suffix.lower() == _GZIP
            file = cast("IO[bytes]", gzip.GzipFile(fileobj=self._file)) if is_packed else self._file
            yield from readers[source.kind](file, str(source.path))

    def _read_json(self, file: IO[bytes], name: str) -> _Rows:
        decoder = msgspec.json.Decoder()
        texts: tuple[str, ...] = ()
        for data in _lines(file):
            try:
                value: object = decoder.decode(data)
            except UnicodeDecodeError:
                yield None, (data,)  # which is a fault of the row
                continue
            except (msgspec.DecodeError, RecursionError):
                yield None, (ValueError("not JSON"),)
                continue
            if isinstance(value, dict):
                texts = texts or self._choose([*value], name)
                yield value.get(self._columns.id), tuple(value.get(column) for column in texts)
            else:
                yield None, (value,)

    def _read_csv(self, file: IO[bytes], name: str) -> _Rows:
        csv.field_size_limit(_MAX_FIELD)
        with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            if not (first := next(text, "")):
                return
            # Spreadsheets separate by semicolons where the comma is a decimal one.
            separator = ";" if ";" in first and "," not in first else ","
            delimiter = "\t" if name.lower().removesuffix(_GZIP).endswith(".tsv") else separator
            rows = csv.reader(chain([first], text), delimiter=delimiter)
            header = next(rows)
            if not _is_utf8("".join(header)):
                raise SetupError(f"{name}: the header is not UTF-8; convert the file, or unpack it")
            places = [header.index(column) for column in self._choose(header, name)]
            id_place = header.index(self._columns.id) if self._columns.id else None
            for row in filter(None, rows):
                values = tuple(row[place] if place < len(row) else None for place in places)
                yield row[id_place] if id_place is not None and id_place < len(row) else None, values

    def _read_parquet(self, file: IO[bytes], name: str) -> _Rows:
        pyarrow, parquet = import_pyarrow()
        opened = parquet.ParquetFile(file)
        texts = self._choose(opened.schema_arrow.names, name)
        wanted = [*texts, *([self._columns.id] if self._columns.id else [])]
        for batch in opened.iter_batches(_PARQUET_ROWS, columns=wanted):
            columns = []
            for column in texts:
                array = batch.column(column)
                kind = array.type
                is_text = pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
                columns.append((array.cast(pyarrow.large_binary()) if is_text else array).to_pylist())
            ids = batch.column(self._columns.id).to_pylist() if self._columns.id else [None] * len(batch)
            yield from zip(ids, zip(*columns, strict=True), strict=True)

    def _choose(self, names: Sequence[str], file: str) -> tuple[str, ...]:
        """Return the columns of texts. Raises SetupError if a file lacks one, or its id."""
        texts = self._columns.texts or (("text",) if "text" in names or len(names) != 1 else (names[0],))
        for column in (*texts, *([self._columns.id] if self._columns.id else [])):
            if column not in names:
                has = ", ".join(names)[:_MAX_WORDS]
                raise SetupError(f"{file} has no column {column!r}, only {has}; use --column and --id-column")
        return texts


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its parquet module. Raises SetupError where it isn't installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise SetupError('parquet needs a package: pip install "nearfar[parquet]"') from error
    return pa, pq


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield each line that isn't blank, without its end and without a byte order mark."""
    for number, data in enumerate(file):
        line = data.removeprefix(b"\xef\xbb\xbf") if not number else data
        if line.strip():
            yield line.rstrip(b"\r\n")


def _read_lines(file: IO[bytes], _: str) -> _Rows:
    return ((None, (line,)) for line in _lines(file))


def _read_text(file: IO[bytes], _: str) -> _Rows:
    yield None, (file.read().removeprefix(b"\xef\xbb\xbf"),)


def _is_utf8(text: str) -> bool:
    """Return whether a text has no lone surrogates, which stand for other bytes."""
    try:
        text.encode()
    except UnicodeError:
        return False
    return True


def _id_of(value: object) -> int | str | None:
    """Return a value as an id, a number that is too large as text; None if it can't be one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value in _INTEGERS else str(value)
    return value if isinstance(value, str) and value and _is_utf8(value) else None


def _row(id_: int | str, values: Values, columns: int) -> InputRow:
    texts: list[str] = []
    for value in values:
        text = _decode(value)
        if isinstance(text, ValueError):
            return InputRow(id_, (), str(text))
        texts.append(text)
    return InputRow(id_, tuple(texts)) if len(texts) >= columns else InputRow(id_, (), "not an object")


def _decode(value: object) -> str | ValueError:
    """Return a value as text, or why it isn't one."""
    if isinstance(value, ValueError):
        return value
    if value is None:
        return ValueError("null")
    try:
        text = value.decode() if isinstance(value, bytes) else value
    except UnicodeError:
        return ValueError("not UTF-8")
    if not isinstance(text, str):
        return ValueError("not text")
    if not _is_utf8(text):
        return ValueError("not UTF-8")
    return text or ValueError("empty")
