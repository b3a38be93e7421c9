"""Every benchmark starts and prints its help."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_benchmark_prints_its_help() -> None:
    commands = [[str(script)] for script in sorted(BENCHMARKS.glob("*.py")) if script.name != "source.py"]
    commands += [[str(BENCHMARKS / "peers.py"), command] for command in ("install", "run")]

    with ThreadPoolExecutor(2) as pool:
        ran = [*pool.map(_help, commands)]

    failed = [done.args for done in ran if done.returncode or done.stderr or "usage:" not in done.stdout]
    assert len(ran) >= 9
    assert [] == failed


def _help(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command, "--help"], capture_output=True, text=True, check=False)
