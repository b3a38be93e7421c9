"""A benchmark's parts, each in a process of its own that is ended at its limit, and the results that they print."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from harness.report import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_STOP_S = 15.0  # for a part that is ended to stop its server


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the table. ``distance`` is from the reference, and wrong above ``limit``."""

    part: str
    engine: str
    dtype: str
    what: str
    tokens_per_s: float = math.nan
    latency: str = ""
    distance: float = math.nan
    limit: float = 0.0
    failure: str = ""

    @property
    def is_right(self) -> bool:
        """Return whether it was measured and is within the limit."""
        return not self.failure and self.distance <= self.limit

    def cells(self) -> list[str]:
        """Format the line."""
        verdict = "ok" if self.is_right else " ".join(self.failure.split()) or "WRONG"
        numbers = (number(self.tokens_per_s), self.latency or "–", f"{self.distance:.1e}", f"{self.limit:.0e}")
        return [self.part, self.engine, self.dtype, self.what, *numbers, verdict]


def print_results(results: Iterable[Result]) -> None:
    """Print each result as soon as it is known: as JSON for ``run_part``, and for people on standard error."""
    for result in results:
        print(json.dumps(asdict(result)), flush=True)
        print(" ".join(result.cells()), file=sys.stderr, flush=True)


def run_part(part: str, limit_s: float, command: Sequence[str]) -> list[Result]:
    """Run the command with ``--part``, and return the results that it had within the limit."""
    failure = ""
    with subprocess.Popen([*command, "--part", part], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 — the benchmark itself
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            failure = f"not done within {limit_s:.0f} s"
            process.terminate()
            try:
                output, _ = process.communicate(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
    if process.returncode and not failure:
        failure = f"exited with {process.returncode}"
    results = [Result(**json.loads(line)) for line in output.splitlines() if line.startswith("{")]
    return results + ([Result(part=part, engine="–", dtype="–", what="all", failure=failure)] if failure else [])
