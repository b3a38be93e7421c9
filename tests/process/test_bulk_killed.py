"""A table is embedded by a command that is killed again and again: the file is the same in the end."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
from server_process import until

from nearfar.bulk.partial_results import Done

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 24_000
KILLS = 3


def command(folder: Path, out: str) -> list[str]:
    options = ["--engine", "fake", "--id-column", "id", "--on-bad", "empty", "--with-text"]
    return [sys.executable, "-m", "nearfar", "embed", str(folder / "in.jsonl"), "--out", str(folder / out), *options]


def test_a_table_outlives_kills(tmp_path: Path) -> None:
    pick = random.Random(3)  # noqa: S311 — the same rows each time
    rows = [{"id": f"row {at}", "text": f"text {pick.random()}" if at % 50 else None} for at in range(ROWS)]
    (tmp_path / "in.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(rows))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command(tmp_path, "whole.parquet"), check=True, env=environment, timeout=300)

    progress = tmp_path / "out.parquet.partial" / "progress.json"
    for _ in range(KILLS):
        before = read_rows(progress)
        process = subprocess.Popen(command(tmp_path, "out.parquet"), env=environment)
        until(lambda: read_rows(progress) > before, 120)  # noqa: B023 — called here
        process.kill()
        process.wait()
    killed_at = read_rows(progress)
    subprocess.run(command(tmp_path, "out.parquet"), check=True, env=environment, timeout=300)

    assert 0 < killed_at < ROWS
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "out.parquet").read_bytes()
    assert not progress.parent.exists()


def read_rows(progress: Path) -> int:
    return msgspec.json.decode(progress.read_bytes(), type=Done).rows_read if progress.exists() else 0
