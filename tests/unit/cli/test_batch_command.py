"""The command ``batch``: the answers of the server's batches, without a server."""

from __future__ import annotations

import gzip
import json
import resource
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from litestar.testing import TestClient
from server_process import until

from nearfar.cli.main import main
from nearfar.core.settings import load_settings
from nearfar.http.app import create_app

if TYPE_CHECKING:
    from pathlib import Path

BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": ["a cat", "a kitten"]},
    "/v1/rerank": {"model": "rerank-v3.5", "query": "a", "documents": ["a", "b"]},
    "/v2/rerank": {"model": "rerank-v3.5", "query": "a", "documents": ["c", "b"]},
    "/v1/embed": {"model": "embed-v4.0", "texts": ["a"], "input_type": "search_query"},
    "/v2/embed": {"model": "embed-v4.0", "texts": ["a"], "input_type": "search_query", "embedding_types": ["int8"]},
    "/v1/score": {"text_1": "a", "text_2": ["a", "b"]},
}


def lines(url: str = "/v1/embeddings", count: int = 4) -> list[dict[str, Any]]:
    """Return requests; the second has no text."""
    found = [{"custom_id": f"{url} {at}", "method": "POST", "url": url, "body": BODIES[url]} for at in range(count)]
    return [*found[:1], {**found[1], "body": {"model": "none"}}, *found[2:]]


def encode(requests: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, requests))


def run(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["batch", *map(str, arguments), "--engine", "fake"], input=stdin)
    return result.exit_code, result.stdout, result.stderr


def read(data: str) -> list[dict[str, Any]]:
    """Return the lines of an output file without what differs each time."""
    found = [json.loads(line) for line in data.splitlines()]
    for line in found:
        del line["id"], line["response"]["request_id"]
        for name in ("id", "created"):
            line["response"]["body"].pop(name, None)
    return found


def serve(folder: Path, url: str, requests: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the output and error files of a server's batch."""
    settings = load_settings({"engine": "fake", "state_dir": str(folder)}, environ={})
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        file = client.post("/v1/files", files={"file": ("in.jsonl", encode(requests))}, data={"purpose": "batch"})
        fields = {"input_file_id": file.json()["id"], "endpoint": url, "completion_window": "24h"}
        batch = client.post("/v1/batches", json=fields).json()

        def has_ended() -> bool:
            batch.update(client.get(f"/v1/batches/{batch['id']}").json())
            return bool(batch["status"] == "completed")

        until(has_ended, 60)
        names = [batch["output_file_id"], batch["error_file_id"]]
        return [read(client.get(f"/v1/files/{name}/content").text) for name in names]


def test_each_line_has_the_answer_of_a_servers_batch(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(encode(lines(url)) for url in BODIES))

    status, printed, shown = run(tmp_path / "in.jsonl", tmp_path / "out.jsonl")

    served = [serve(tmp_path / str(at), url, lines(url)) for at, url in enumerate(BODIES)]
    found = [read((tmp_path / name).read_text()) for name in ("out.jsonl", "out.errors.jsonl")]
    assert (3, "") == (status, printed)
    assert "18 lines of 24 answered, 6 failed" in shown
    assert [[line for files in served for line in files[at]] for at in (0, 1)] == found
    assert not (tmp_path / "out.jsonl.partial").exists()
    assert (tmp_path / "in.jsonl").stat().st_mode == (tmp_path / "out.jsonl").stat().st_mode


def test_a_batch_goes_through_pipes_and_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(encode(lines()).encode()))

    packed = run(tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl")
    piped = run("-", "-", "--errors", tmp_path / "bad.jsonl", stdin=encode(lines()))

    assert [3, 3] == [packed[0], piped[0]]
    assert f"the standard output, {tmp_path / 'bad.jsonl'}" in piped[2]
    assert read((tmp_path / "out.jsonl").read_text()) == read(piped[1])
    assert ["/v1/embeddings 1"] == [line["custom_id"] for line in read((tmp_path / "bad.jsonl").read_text())]
    assert "--errors FILE" in run("-", "-", stdin=encode(lines()))[2]


def test_bad_lines_are_listed_and_nothing_runs(tmp_path: Path) -> None:
    good = lines()[0]
    bad = [
        "{",
        json.dumps(good | {"custom_id": "b", "url": "/v1/chat/completions"}),
        json.dumps({**good, "custom_id": ""}),
    ]
    (tmp_path / "in.jsonl").write_text("\n".join([json.dumps(good), *bad]))

    status, _, shown = run(tmp_path / "in.jsonl", tmp_path / "out.jsonl")

    assert status == 1
    assert ["line 2", "line 3", "line 4"] == [line[:6] for line in shown.splitlines()[1:]]
    assert "one of /v1/embeddings, /v1/rerank" in shown
    assert ["in.jsonl"] == [path.name for path in tmp_path.iterdir()]


def test_an_output_is_replaced_only_if_asked(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(encode(lines()))
    (tmp_path / "good.jsonl").write_text(encode(lines()[:1]))
    run(tmp_path / "in.jsonl", tmp_path / "out.jsonl")

    refused = run(tmp_path / "good.jsonl", tmp_path / "out.jsonl")
    replaced = run(tmp_path / "good.jsonl", tmp_path / "out.jsonl", "--overwrite")

    assert (1, True) == (refused[0], "use --overwrite" in refused[2])
    assert 0 == replaced[0], replaced[2]
    assert ["good.jsonl", "in.jsonl", "out.jsonl"] == sorted(path.name for path in tmp_path.iterdir())
    assert ["/v1/embeddings 0"] == [line["custom_id"] for line in read((tmp_path / "out.jsonl").read_text())]


@pytest.mark.parametrize(
    ("out", "errors", "message"),
    [
        ("in.jsonl", "errors.jsonl", "must be three files"),
        ("out.jsonl", "in.jsonl", "must be three files"),
        ("out.jsonl", "out.jsonl", "must be three files"),
        (".", "errors.jsonl", "is a folder; name a file"),
    ],
)
def test_a_file_is_never_replaced_by_another_of_the_same_command(
    tmp_path: Path, out: str, errors: str, message: str
) -> None:
    (tmp_path / "in.jsonl").write_text(encode(lines()))

    status, _, printed = run(tmp_path / "in.jsonl", tmp_path / out, "--errors", tmp_path / errors, "--overwrite")

    assert (1, True) == (status, message in printed)
    assert [(tmp_path / "in.jsonl", encode(lines()))] == [(path, path.read_text()) for path in tmp_path.iterdir()]


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(encode(lines(count=200)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))  # a write beyond it fails like a full disk
    try:
        status, _, printed = run(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (1, True) == (status, "is full; the same command goes on there" in printed), printed
    assert not (tmp_path / "out.jsonl").exists()
    assert run(tmp_path / "in.jsonl", tmp_path / "out.jsonl")[0] == 3
    assert 199 == len(read((tmp_path / "out.jsonl").read_text()))


def stop_half_way(folder: Path) -> None:
    """Run a batch, and leave what a crash leaves before the answers are moved."""
    source, out = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text(encode(lines()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nearfar.bulk.offline_batch.finish", lambda *_: None)
        run(source, out)


def test_answers_that_are_done_are_moved_by_the_next_run(tmp_path: Path) -> None:
    stop_half_way(tmp_path)
    files = tmp_path / "out.jsonl.partial" / "files"
    written = max(files.iterdir(), key=lambda path: path.stat().st_size * (b'"response"' in path.read_bytes()))
    written.rename(tmp_path / "out.jsonl")  # and a crash comes before the folder is deleted
    before = (tmp_path / "out.jsonl").read_bytes()

    status, _, _ = run(tmp_path / "in.jsonl", tmp_path / "out.jsonl")

    assert (3, before) == (status, (tmp_path / "out.jsonl").read_bytes())
    assert ["in.jsonl", "out.errors.jsonl", "out.jsonl"] == sorted(path.name for path in tmp_path.iterdir())


def test_another_input_or_model_is_refused(tmp_path: Path) -> None:
    stop_half_way(tmp_path)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"

    other_model = run(source, out, "--on-overflow", "error")
    source.write_text(encode(lines(count=9)))
    other_input = run(source, out)

    assert (1, True) == (other_model[0], "repeat that command" in other_model[2])
    assert (1, True) == (other_input[0], "restore it, or delete the folder" in other_input[2])
    with closing(sqlite3.connect(tmp_path / "out.jsonl.partial" / "batches.sqlite3")) as database:
        assert [(1,)] == database.execute("SELECT count(*) FROM batches").fetchall()
