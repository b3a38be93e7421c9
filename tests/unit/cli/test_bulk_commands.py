"""The commands ``embed`` and ``rerank``, with the model of this process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from click.testing import CliRunner

from nearfar.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [*map(str, arguments), "--engine", "fake"])
    return result.exit_code, result.output


def read(path: Path) -> list[dict[str, Any]]:
    return msgspec.json.Decoder().decode_lines(path.read_bytes())


def test_rows_are_embedded_with_their_ids(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("name,text\na,one\nb,two\n")

    status, printed = run("embed", tmp_path / "in.csv", "--id-column", "name", "--out", tmp_path / "out.jsonl")

    assert (0, ["a", "b"]) == (status, [row["id"] for row in read(tmp_path / "out.jsonl")])
    assert "2 rows of 2" in printed
    assert all(math.isclose(1, math.hypot(*row["vector"]), rel_tol=1e-5) for row in read(tmp_path / "out.jsonl"))
    assert ["in.csv", "out.jsonl"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_command_that_ended_at_a_bad_row_can_go_on_without_it(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "one"}\n{"text": null}\n{"text": "two"}\n')
    arguments = ("embed", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")

    status, printed = run(*arguments)
    assert (1, True) == (status, "row 1 (id 1) is bad: null" in printed)
    status, printed = run(*arguments, "--on-bad", "skip")

    assert (0, [0, 2]) == (status, [row["id"] for row in read(tmp_path / "out.jsonl")])
    assert "1 bad rows: null" in printed
    assert [{"row": 1, "id": 1, "reason": "null"}] == read(tmp_path / "out.jsonl.bad.jsonl")


def test_a_text_over_the_limit_is_cut_or_bad(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("short\n" + "long " * 1000)
    arguments = ("embed", tmp_path / "in.txt", "--on-bad", "skip")

    cut = run(*arguments, "--out", tmp_path / "cut.jsonl")
    bad = run(*arguments, "--out", tmp_path / "bad.jsonl", "--on-overflow", "error")

    assert "1 texts were cut" in cut[1]
    assert "1 bad rows: too long" in bad[1]
    assert [2, 1] == [len(read(tmp_path / name)) for name in ("cut.jsonl", "bad.jsonl")]


def test_chunks_cover_the_text(tmp_path: Path) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 5
    (tmp_path / "in.md").write_text(text)

    status, _ = run("embed", tmp_path / "in.md", "--chunk", 20, "--with-text", "--out", tmp_path / "out.jsonl")

    rows = read(tmp_path / "out.jsonl")
    assert (0, text) == (status, "".join(row["text"] for row in rows))
    assert len(rows) == 3
    assert all(text[row["start"] : row["stop"]] == row["text"] for row in rows)


def test_pairs_are_scored(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"query": "a", "text": "a"}\n{"query": "a", "text": "b"}\n')

    status, printed = run("rerank", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")

    first, second = (row["score"] for row in read(tmp_path / "out.jsonl"))
    assert status == 0, printed
    assert math.isclose(1, first, rel_tol=1e-5)
    assert second < first


def test_a_pair_over_the_limit_is_cut_or_bad(tmp_path: Path) -> None:
    rows = [{"query": "a", "text": "short"}, {"query": "a", "text": "long " * 1000}]
    (tmp_path / "in.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(rows))
    arguments = ("rerank", tmp_path / "in.jsonl", "--on-bad", "skip")

    run(*arguments, "--out", tmp_path / "cut.jsonl")
    run(*arguments, "--out", tmp_path / "bad.jsonl", "--on-overflow", "error")

    assert [[0, 1], [0]] == [[row["id"] for row in read(tmp_path / name)] for name in ("cut.jsonl", "bad.jsonl")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "none-such"], "has no prompt 'none-such'"),
        (["--dimensions", "5000"], "5000"),
        (["--url", "http://127.0.0.1:9", "--prompt", "query"], "write --model MODEL:PROMPT"),
        (["--url", "http://127.0.0.1:9", "--on-overflow", "error"], "a server decides what it cuts"),
        (["--column", "none"], "has no column 'none'"),
    ],
)
def test_what_is_wrong_with_all_rows_is_stated_once(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "in.csv").write_text("text,n\none,1\n")

    status, printed = run("embed", tmp_path / "in.csv", "--out", tmp_path / "out.npy", *arguments)

    assert (1, True) == (status, message in printed), printed
    assert "is bad" not in printed
