"""The benchmarks' commands explain themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.parametrize(
    "command",
    [
        ["engines.py"],
        ["judges.py"],
        ["recall.py"],
        ["server.py"],
        ["peers.py"],
        ["peers.py", "run"],
        ["peers.py", "install"],
    ],
    ids=" ".join,
)
def test_every_command_has_its_help(command: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, BENCHMARKS / command[0], *command[1:], "--help"], capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "usage:" in ran.stdout
