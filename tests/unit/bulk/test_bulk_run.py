"""A run writes each row once, in every kind of file, and goes on where it was stopped."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from nearfar.bulk import bulk_run
from nearfar.bulk.bulk_run import BulkRun
from nearfar.bulk.choices import Options
from nearfar.bulk.models import Computed
from nearfar.bulk.partial_results import Checkpoint, Done
from nearfar.bulk.sources import Columns, RowReader, find_files
from nearfar.bulk.writers import check_output
from nearfar.core.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


pytestmark = pytest.mark.anyio

ROWS = 500
BLOCK = 100


class Stopped(Exception):
    pass


class LengthModel:
    """Has a vector of each text's length. Refuses texts with ``bad``, and cuts those with ``long``."""

    int8_range: float | None = None

    def __init__(self, stop_after: int = 1 << 30) -> None:
        self.identity: dict[str, object] = {"model": "lengths"}
        self.computed: list[str] = []
        self._left = stop_after

    async def run(self, rows: Sequence[tuple[str, ...]]) -> Computed:
        return await self.compute(rows)

    async def compute(self, rows: Sequence[tuple[str, ...]]) -> Computed:
        if not self._left:
            raise Stopped
        self._left -= 1
        self.computed += [texts[-1] for texts in rows]
        vectors = np.array([[len(texts[-1]), -len(texts[0]), 0.25] for texts in rows], np.float32)
        faults = {at: "refused" for at, texts in enumerate(rows) if "bad" in texts[-1]}
        return Computed(vectors, len(rows), ["long" in texts[-1] for texts in rows], faults)

    async def split(self, text: str, size: int, /) -> list[tuple[int, int]]:
        return [(at, min(at + size, len(text))) for at in range(0, len(text), size)]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_run, "_BLOCK_ROWS", BLOCK)


def write_input(folder: Path, texts: Sequence[str | None]) -> Path:
    path = folder / "in.jsonl"
    path.write_bytes(msgspec.json.Encoder().encode_lines([{"text": text} for text in texts]))
    return path


TEXTS = [f"{'x' * (at % 37)} {at}" for at in range(ROWS)]


async def run(folder: Path, out: str, model: LengthModel | None = None, **options: Any) -> Done:
    """Run over the folder's input, and return what was counted."""
    reader = RowReader(find_files([folder / "in.jsonl"]), Columns())
    model = model or LengthModel()
    checkpoint = Checkpoint(folder / f"{out}.partial", {"input": reader.identity, **model.identity})
    chosen = Options(**{"out": folder / out, "column": "vector", **options})
    try:
        await BulkRun(reader, model, checkpoint, chosen, lambda _: None).run()
    finally:
        checkpoint.close()
    return checkpoint.done


@pytest.mark.parametrize("kind", ["parquet", "npy", "jsonl", "sqlite"])
async def test_every_kind_of_file_has_the_vectors_in_order(tmp_path: Path, kind: str) -> None:
    write_input(tmp_path, TEXTS)

    await run(tmp_path, f"out.{kind}", keeps_text=True)

    expected = [[len(text), -len(text), 0.25] for text in TEXTS]
    assert (expected, TEXTS) == read(tmp_path / f"out.{kind}")


def read(path: Path) -> tuple[list[list[float]], list[str]]:
    """Return the vectors and texts of a file."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        assert str(table.schema.field("vector").type) == "fixed_size_list<element: float>[3]"
        return table["vector"].to_pylist(), table["text"].to_pylist()
    if path.suffix == ".npy":
        beside = msgspec.json.Decoder().decode_lines(path.with_suffix(".ids.jsonl").read_bytes())
        assert [*range(ROWS)] == [row["id"] for row in beside]
        return np.load(path).tolist(), [row["text"] for row in beside]
    if path.suffix == ".jsonl":
        rows = msgspec.json.Decoder().decode_lines(path.read_bytes())
        return [row["vector"] for row in rows], [row["text"] for row in rows]
    found = sqlite3.connect(path).execute("SELECT vector, text FROM rows ORDER BY id").fetchall()
    return [np.frombuffer(vector, np.float32).tolist() for vector, _ in found], [text for _, text in found]


@pytest.mark.parametrize("kind", ["parquet", "npy", "jsonl"])
async def test_a_stopped_run_goes_on_and_writes_the_same_bytes(tmp_path: Path, kind: str) -> None:
    write_input(tmp_path, TEXTS)
    await run(tmp_path, f"whole.{kind}")

    first = LengthModel(stop_after=2)
    with pytest.raises(Stopped):
        await run(tmp_path, f"out.{kind}", first)
    for name in ("vectors.bin", "records.jsonl", "bad.jsonl"):
        with (tmp_path / f"out.{kind}.partial" / name).open("ab") as file:
            file.write(b"what a crash left")
    second = LengthModel()
    await run(tmp_path, f"out.{kind}", second)

    assert TEXTS == first.computed + second.computed
    assert (tmp_path / f"whole.{kind}").read_bytes() == (tmp_path / f"out.{kind}").read_bytes()


async def test_bad_rows_are_left_out_or_empty_and_counted(tmp_path: Path) -> None:
    write_input(tmp_path, ["fine", None, "bad", "long", ""])

    done = await run(tmp_path, "skip.jsonl", on_bad="skip", refuses_cut=True)
    await run(tmp_path, "empty.jsonl", on_bad="empty")
    await run(tmp_path, "empty.npy", on_bad="empty")
    await run(tmp_path, "empty.parquet", on_bad="empty")

    assert {"null": 1, "refused": 1, "too long": 1, "empty": 1} == done.bad
    rows = [
        msgspec.json.Decoder().decode_lines((tmp_path / f"{name}.jsonl").read_bytes()) for name in ("skip", "empty")
    ]
    assert [0] == [row["id"] for row in rows[0]]
    assert [True, False, False, True, False] == [row["vector"] is not None for row in rows[1]]
    assert [False, True, True, False, True] == np.isnan(np.load(tmp_path / "empty.npy")[:, 0]).tolist()
    assert 3 == pq.read_table(tmp_path / "empty.parquet")["vector"].null_count


async def test_a_bad_row_ends_the_command_unless_it_may_be_left_out(tmp_path: Path) -> None:
    write_input(tmp_path, [*TEXTS[:150], None])

    with pytest.raises(SetupError, match=r"row 150 \(id 150\) is bad: null; fix it, or use --on-bad"):
        await run(tmp_path, "out.npy")
    write_input(tmp_path, ["bad"])
    with pytest.raises(SetupError, match="no row of the input has a text"):
        await run(tmp_path, "other.npy", on_bad="skip")


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float16", [4, -4, 0.25]), ("int8", [127, -128, 13]), ("binary", [0b10100000])]
)
async def test_numbers_are_written_as_asked(tmp_path: Path, dtype: str, expected: list[float]) -> None:
    write_input(tmp_path, ["four"])

    await run(tmp_path, "out.npy", dtype=dtype)

    assert [expected] == np.load(tmp_path / "out.npy").tolist()


async def test_chunks_have_their_place_and_their_text(tmp_path: Path) -> None:
    write_input(tmp_path, ["abcdefgh", "xyz"])

    await run(tmp_path, "out.jsonl", chunk=3, keeps_text=True)

    rows = msgspec.json.Decoder().decode_lines((tmp_path / "out.jsonl").read_bytes())
    assert [(0, 0, 3, "abc"), (0, 3, 6, "def"), (0, 6, 8, "gh"), (1, 0, 3, "xyz")] == [
        (row["id"], row["start"], row["stop"], row["text"]) for row in rows
    ]
    assert [3, 3, 2, 3] == [row["vector"][0] for row in rows]


async def test_a_checkpoint_of_another_command_is_refused(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "p", {"model": "one", "input": [1]}).close()

    with pytest.raises(SetupError, match="another model; repeat that command, or delete the folder"):
        Checkpoint(tmp_path / "p", {"model": "two", "input": [1]})
    with pytest.raises(SetupError, match="in use"):
        _open_twice(tmp_path / "p", {"model": "one", "input": [1]})


def _open_twice(folder: Path, job: dict[str, object]) -> None:
    opened = Checkpoint(folder, job)
    try:
        Checkpoint(folder, job)
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("name", "has_nulls", "message"),
    [("out.xlsx", False, "name it .parquet"), ("here.npy", False, "exists"), ("out.npy", True, "--on-bad skip")],
)
def test_an_output_that_can_t_be_written_is_refused_at_once(
    tmp_path: Path, name: str, has_nulls: bool, message: str
) -> None:
    (tmp_path / "here.npy").touch()

    with pytest.raises(SetupError, match=message):
        check_output(tmp_path / name, has_nulls=has_nulls, is_float=False)
