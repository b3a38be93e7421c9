"""A batch without a server is killed again and again: each line is answered once, as if nothing had happened."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from server_process import until

from nearfar.batches.store import DATABASE

if TYPE_CHECKING:
    from pathlib import Path

LINES = 6000
KILLS = 3


def command(folder: Path, out: str) -> list[str]:
    program = [sys.executable, "-m", "nearfar", "batch"]
    return [*program, str(folder / "in.jsonl"), str(folder / out), "--engine", "fake"]


def test_an_offline_batch_outlives_kills(tmp_path: Path) -> None:
    requests = [
        {
            "custom_id": str(at),
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"input": texts, "model": "text-embedding-3-small"},
        }
        for at in range(LINES)
        for texts in [[f"text {at} {part}" for part in range(8)] if at % 50 else ""]
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, requests)))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command(tmp_path, "whole.jsonl"), check=False, env=environment, timeout=300)

    folder = tmp_path / "out.jsonl.partial"
    counts = []
    for _ in range(KILLS):
        before = answered(folder)
        with subprocess.Popen(command(tmp_path, "out.jsonl"), env=environment) as process:
            until(lambda: answered(folder) > before, 120)  # noqa: B023 — called here
            process.kill()
        counts.append(answered(folder))
    ended = subprocess.run(command(tmp_path, "out.jsonl"), check=False, env=environment, timeout=300)

    assert ended.returncode == 3
    assert 0 < counts[0] < counts[1] < counts[2] < LINES
    for kind in ("", ".errors"):
        found = read(tmp_path / f"out{kind}.jsonl")
        assert read(tmp_path / f"whole{kind}.jsonl") == found
        assert all((int(line["custom_id"]) % 50 == 0) == bool(kind) for line in found)
    assert not folder.exists()


def answered(folder: Path) -> int:
    """Return how many lines have stored answers."""
    if not (folder / DATABASE).exists():
        return 0
    records: list[tuple[bytes]] = []
    with closing(sqlite3.connect(folder / DATABASE)) as database, suppress(sqlite3.OperationalError):  # no table yet
        records = database.execute("SELECT record FROM batches").fetchall()
    counts = [json.loads(record)["batch"]["request_counts"] for (record,) in records]
    return sum(count["completed"] + count["failed"] for count in counts)


def read(path: Path) -> list[Any]:
    """Return lines without what differs each time: ids."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["id"], line["response"]["request_id"]
    return lines
