"""The commands ``embed`` and ``rerank``, with the model of this process."""

from __future__ import annotations

import math
import resource
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from click.testing import CliRunner

from nearfar.bulk.partial_results import Checkpoint
from nearfar.cli.main import main
from nearfar.core.errors import SetupError

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: object) -> tuple[int, str]:
    engine = () if "--url" in arguments else ("--engine", "fake")
    result = CliRunner().invoke(main, [*map(str, arguments), *engine])
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


def test_a_crash_before_the_last_step_is_mended_by_the_same_command(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "one"}\n{"text": null}\n{"text": "two"}\n')
    arguments = ("embed", tmp_path / "in.jsonl", "--on-bad", "skip", "--out", tmp_path / "out.npy")

    def crash(checkpoint: Checkpoint) -> None:
        checkpoint.close()
        raise SetupError("crashed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "remove", crash)
        assert run(*arguments)[0] == 1
    first, *renamed = sorted(
        path for path in tmp_path.iterdir() if path.name.startswith("out") and ".partial" not in path.name
    )
    first.rename(first.with_name("out.new" + first.name.removeprefix("out")))  # a crash between two names
    other = run(*arguments, "--dimensions", 16)
    status, printed = run(*arguments)

    assert (1, True) == (other[0], "another dimensions" in other[1])
    assert (0, True) == (status, "already complete" in printed), printed
    assert sorted([first, *renamed, tmp_path / "in.jsonl"]) == sorted(tmp_path.iterdir())
    assert [{"row": 1, "id": 1, "reason": "null"}] == read(tmp_path / "out.npy.bad.jsonl")


def test_an_output_is_replaced_only_if_asked(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one")
    (tmp_path / "out.jsonl").write_text("old")
    arguments = ("embed", tmp_path / "in.txt", "--out", tmp_path / "out.jsonl")

    refused = run(*arguments)
    unchanged = (tmp_path / "out.jsonl").read_text()
    replaced = run(*arguments, "--overwrite")

    assert (1, True, "old") == (refused[0], "use --overwrite" in refused[1], unchanged)
    assert (0, [0]) == (replaced[0], [row["id"] for row in read(tmp_path / "out.jsonl")])


def test_a_pattern_in_quotes_is_expanded(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.csv", "[d].txt"):
        (tmp_path / name).write_text(f"text\n{name}")

    run("embed", tmp_path / "*.txt", "--with-text", "--out", tmp_path / "out.jsonl")
    run("embed", tmp_path / "[d].txt", "--with-text", "--out", tmp_path / "one.jsonl")
    status, printed = run("embed", tmp_path / "*.md", "--out", tmp_path / "none.jsonl")

    texts = [
        [row["text"] for row in read(tmp_path / name) if row["text"] != "text"] for name in ("out.jsonl", "one.jsonl")
    ]
    assert [["[d].txt", "a.txt", "b.txt"], ["[d].txt"]] == texts
    assert (1, True) == (status, "no such file" in printed)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--engine", "torch"), ("--device", "cpu"), ("--dtype", "int8"), ("--threads", "1"), ("--config", "a.toml")],
)
def test_options_of_a_model_of_this_process_are_refused_with_a_url(tmp_path: Path, option: str, value: str) -> None:
    (tmp_path / "in.txt").write_text("one")

    status, printed = run("embed", tmp_path / "in.txt", "--out", tmp_path / "o.npy", "--url", "http://a", option, value)

    assert (2, True) == (status, f"{option} is for a model of this process" in printed)


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


@pytest.mark.parametrize(("out", "limit"), [("out.npy", 0), ("out.npy", 20_000), ("out.jsonl", 100_000)])
def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(tmp_path: Path, out: str, limit: int) -> None:
    """The disk is full at the start, at the first rows, and at the last step, where numbers become text."""
    (tmp_path / "in.txt").write_text("".join(f"row {at}\n" for at in range(200)))
    arguments = ("embed", tmp_path / "in.txt", "--out", tmp_path / out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))  # a write beyond it fails like a full disk
    try:
        status, printed = run(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (1, True) == (status, "can't be written (File too large). What is done is kept" in printed), printed
    assert not (tmp_path / out).exists()
    status, printed = run(*arguments)
    run(*arguments[:3], tmp_path / f"whole_{out}")
    assert (0, True) == (status, "200 rows of 200" in printed)
    assert (tmp_path / f"whole_{out}").read_bytes() == (tmp_path / out).read_bytes()


@pytest.mark.parametrize(("inputs", "out"), [("in.jsonl", "in.jsonl"), ("*.jsonl", "in.jsonl"), (".", "new/out.npy")])
def test_an_output_never_replaces_its_input_and_never_becomes_input(tmp_path: Path, inputs: str, out: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "one"}\n')

    status, printed = run("embed", tmp_path / inputs, "--out", tmp_path / out, "--overwrite")

    assert (1, True) == (status, "input" in printed)
    assert [tmp_path / "in.jsonl"] == [*tmp_path.iterdir()]


def test_a_name_that_is_too_long_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n")

    status, printed = run("embed", tmp_path / "in.txt", "--out", tmp_path / f"{'x' * 250}.jsonl")

    assert (1, True) == (status, "can't be written (File name too long)" in printed)


def test_a_folder_is_never_replaced_by_an_output(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n")
    (tmp_path / "out.npy").mkdir()
    (tmp_path / "out.npy" / "precious").touch()

    status, printed = run("embed", tmp_path / "in.txt", "--out", tmp_path / "out.npy", "--overwrite")

    assert (1, True) == (status, "is a folder" in printed)
    assert (tmp_path / "out.npy" / "precious").exists()
