"""Rows are read from every kind of file, with their faults."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearfar.bulk.sources import NO_ID, Columns, InputRow, RowReader, find_files
from nearfar.core.errors import SetupError

TABLE = {"id": ["a", "b", "c"], "text": ["one", None, "three"], "other": ["x", "y", "z"]}
ROWS = [InputRow("a", ("one",)), InputRow("b", (), "null"), InputRow("c", ("three",))]


def read(*paths: Path, columns: Columns | None = None) -> list[InputRow]:
    return [*RowReader(find_files(paths), columns or Columns()).rows()]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_parquet_has_columns_and_nulls(tmp_path: Path) -> None:
    pq.write_table(pa.table(TABLE), tmp_path / "rows.parquet")

    assert ROWS == read(tmp_path / "rows.parquet", columns=Columns(id="id"))
    assert [("one", "x"), (), ("three", "z")] == [
        row.texts for row in read(tmp_path / "rows.parquet", columns=Columns(("text", "other")))
    ]


def test_parquet_with_bytes_that_are_no_text_has_a_fault_in_their_row(tmp_path: Path) -> None:
    strings = pa.Array.from_buffers(pa.string(), 2, pa.array([b"fine", b"\xff"], pa.binary()).buffers())
    pq.write_table(pa.table({"text": strings, "n": [1, 2]}), tmp_path / "rows.parquet")

    assert [InputRow(0, ("fine",)), InputRow(1, (), "not UTF-8")] == read(tmp_path / "rows.parquet")
    assert {"not text"} == {row.fault for row in read(tmp_path / "rows.parquet", columns=Columns(("n",)))}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.jsonl.gz"])
def test_json_lines_are_objects_or_texts(tmp_path: Path, name: str) -> None:
    lines = [
        b'{"id": 7, "text": "one"}',
        b"",
        b'"plain"',
        b'{"text": 5}',
        b"{}",
        b"no",
        b'{"text": "\xff"}',
        b'"\xed\xa0\x80"',
    ]

    rows = read(write(tmp_path / name, b"\n".join(lines)), columns=Columns(("text",)))

    assert [("one",), ("plain",)] == [row.texts for row in rows if not row.fault]
    assert ["not text", "null", "not JSON", "not UTF-8", "not UTF-8"] == [row.fault for row in rows if row.fault]


def test_csv_has_quoted_lines_a_byte_order_mark_and_short_rows(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfid,text\na,"one\ntwo"\nb\nc,\nd,\xff\n\ne,"say ""hi"""\n'

    rows = read(write(tmp_path / "rows.csv", data), columns=Columns(id="id"))

    assert [("a", "one\ntwo"), ("e", 'say "hi"')] == [(row.id, *row.texts) for row in rows if not row.fault]
    assert [("b", "null"), ("c", "empty"), ("d", "not UTF-8")] == [(row.id, row.fault) for row in rows if row.fault]


def test_semicolons_divide_the_columns_of_csv_if_the_header_has_no_comma(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "rows.csv", b'id;text\n1;one, two\n2;"three; four"\n'), columns=Columns(id="id"))

    assert [("1", "one, two"), ("2", "three; four")] == [(row.id, *row.texts) for row in rows]


def test_tabs_divide_the_columns_of_tsv(tmp_path: Path) -> None:
    assert [("one, two",)] == [row.texts for row in read(write(tmp_path / "rows.tsv", b"text\tn\none, two\t1\n"))]


def test_lines_keep_their_spaces_and_lose_their_ends(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "rows.txt", b"\xef\xbb\xbfone\r\n\n two \n\xff\nthree"))

    assert [("one",), (" two ",), (), ("three",)] == [row.texts for row in rows]


def test_a_folder_is_read_in_order_and_names_its_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "second.md", "# Größe\n\ntext".encode())
    write(tmp_path / "a.txt", b"first\nagain")
    write(tmp_path / "image.png", b"\x89PNG")

    rows = read(tmp_path)

    assert ["first", "again", "# Größe\n\ntext"] == [text for row in rows for text in row.texts]
    assert [f"{tmp_path}/a.txt:0", f"{tmp_path}/a.txt:1", f"{tmp_path}/b/second.md:0"] == [row.id for row in rows]


@pytest.mark.parametrize(
    ("name", "data", "columns", "message"),
    [
        ("rows.csv", b"a,b\n1,2\n", Columns(), "has no column 'text', only a, b; use --column"),
        ("rows.csv", b"text\n1\n", Columns(id="id"), "has no column 'id', only text"),
        ("rows.jsonl", b'{"a": 1, "b": 2}\n', Columns(), "has no column 'text', only a, b"),
        ("rows.parquet", b"PAR1", Columns(), r"can't be read \("),
        ("rows.csv", "id,text\n1,one\n".encode("utf-16"), Columns(), "the header is not UTF-8; convert the file"),
        ("rows.docx", b"", Columns(), "use --format"),
    ],
)
def test_a_file_that_can_t_be_read_is_named(
    tmp_path: Path, name: str, data: bytes, columns: Columns, message: str
) -> None:
    with pytest.raises(SetupError, match=message) as raised:
        read(write(tmp_path / name, data), columns=columns)

    assert name in str(raised.value)


def test_what_isn_t_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(SetupError, match=r"has no files that can be read; known are \.txt"):
        read(tmp_path)


def test_the_share_that_was_read_grows_to_one(tmp_path: Path) -> None:
    reader = RowReader(find_files([write(tmp_path / "rows.txt", b"text\n" * 100_000)]), Columns())

    shares = [reader.share for _ in reader.rows()]

    assert shares == sorted(shares, key=lambda share: share or 0)
    assert 0 < (shares[0] or 0) < 0.1
    assert reader.share == 1


def test_pairs_are_read_only_from_columns(tmp_path: Path) -> None:
    """A line of a text isn't scored as if it were a query and a document."""
    columns = Columns(("query", "text"))
    write(tmp_path / "rows.jsonl", b'"one"\n{"query": "a", "text": "b"}')

    for name in ("rows.txt", "rows.md"):
        with pytest.raises(SetupError, match="has no columns; query and text are read from"):
            read(write(tmp_path / name, b"one\ntwo"), columns=columns)
    assert [InputRow(0, (), "not an object"), InputRow(1, ("a", "b"))] == read(tmp_path / "rows.jsonl", columns=columns)


def test_a_row_without_an_id_is_bad_where_ids_are_named(tmp_path: Path) -> None:
    ids: list[object] = [1, "a", 1 << 63, None, "", 1.5, True, [1], {"a": 1}]
    lines = [{"id": id_, "text": "one"} for id_ in ids]
    path = write(tmp_path / "rows.jsonl", msgspec.json.Encoder().encode_lines(lines) + b'{"text": "one"}\n')

    rows = read(path, columns=Columns(id="id"))

    assert [1, "a", str(1 << 63)] == [row.id for row in rows if not row.fault]
    assert [(at, NO_ID) for at in range(3, 10)] == [(row.id, row.fault) for row in rows if row.fault]


def test_an_empty_file_of_a_table_has_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", b"")
    write(tmp_path / "b.csv", b"text\none\n")

    assert [("one",)] == [row.texts for row in read(tmp_path)]


def test_parquet_from_a_pipe_is_refused() -> None:
    with pytest.raises(SetupError, match="can't be read from a pipe"):
        find_files([Path("-")], "parquet")
