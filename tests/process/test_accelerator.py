"""The GPU benchmark, run on the CPU with a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import write_steps, write_transformer
from harness.parts import Result, run_part

SCRIPT = Path(__file__).parents[2] / "benchmarks/accelerator.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def test_it_measures_numbers_engine_and_server_and_all_numbers_are_right(tmp_path: Path) -> None:
    model = write_transformer(tmp_path / "bert", "bert")
    write_steps(model, "mean")
    few = ("--seconds", "0.1", "--dtypes", "float32", "--clients", "1", "4")

    ended = run("--device", "cpu", "--model", str(model), "--results", str(tmp_path), *few)

    assert 0 == ended.returncode, ended.stdout + ended.stderr
    results = [Result(**result) for result in json.loads((tmp_path / "accelerator.json").read_text())["results"]]
    assert ["numbers"] * 6 + ["engine"] * 3 + ["server"] * 2 == [result.part for result in results]
    assert all(result.tokens_per_s > 0 for result in results if result.part != "numbers")
    assert len(results) == ended.stdout.count("| ok |")
    assert (tmp_path / "accelerator.svg").exists()


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_refuses_in_one_sentence() -> None:
    ended = run()

    assert 1 == ended.returncode
    assert "this machine has no CUDA or Metal device; --device cpu runs the same on the CPU\n" == ended.stderr


def test_a_part_over_its_limit_is_ended_and_keeps_its_results() -> None:
    result = Result(part="engine", engine="torch", dtype="float32", what="passages", distance=0.1, limit=0.2)
    line = json.dumps(
        {name: getattr(result, name) for name in ("part", "engine", "dtype", "what", "distance", "limit")}
    )
    code = f"import time; print({line!r}, flush=True); time.sleep(600)"

    found, unfinished = run_part("engine", 5, [sys.executable, "-c", code])

    assert (result.cells(), True) == (found.cells(), found.is_right)
    assert ("not done within 5 s", False) == (unfinished.failure, unfinished.is_right)


@pytest.mark.parametrize("distance", [0.3, float("nan")])
def test_a_distance_over_the_limit_or_none_at_all_is_wrong(distance: float) -> None:
    result = Result(part="numbers", engine="torch", dtype="float32", what="the model", distance=distance, limit=0.2)

    assert not result.is_right
    assert "WRONG" == result.cells()[-1]
