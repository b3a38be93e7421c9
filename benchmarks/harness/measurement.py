"""Run scenarios against a server in rounds, and summarize the rounds.

All scenarios run once before any runs again, so that a machine that gets slower over minutes affects all alike.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.load.spec import LoadSpec, StreamResult
from harness.reference import Vectors, accuracy
from harness.report import median_and_range, number, spread, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.launcher import Server
    from harness.scenarios import Scenario

_METRICS = ("texts_per_s", "requests_per_s", "p50_ms", "p95_ms", "p99_ms", "max_ms")
_HEADER = ("scenario", "clients", "texts/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "failed", "accuracy", "load CPU")
_BACKGROUND = "·background"  # name suffix of the other client's row


@dataclass(frozen=True)
class Measurement:
    """What one stream reached in one round of a scenario."""

    name: str
    clients: int
    result: StreamResult
    accuracy: dict[str, float]
    generator_cpu: float

    def __str__(self) -> str:
        """Format one line of progress."""
        result = self.result
        failed = f"  failed: {result.failures} {result.first_failure}" if result.failures else ""
        return (
            f"{self.name:<26}{number(result.texts_per_s):>9} texts/s  p50 {number(result.p50_ms):>7}"
            f"  p99 {number(result.p99_ms):>7} ms{failed}"
        )


@dataclass(frozen=True)
class RoundSpec:
    """How often and how long to run every scenario."""

    rounds: int
    duration_s: float
    warmup_s: float = 0.5  # a guess: a second makes no difference to any scenario
    timeout_s: float = 120.0  # how long to wait for the last responses


class ScenarioRunner:
    """Run scenarios on one server at a time and collect the measurements of all rounds."""

    def __init__(self, rounds: RoundSpec, expected: Vectors) -> None:
        self.rounds, self._expected = rounds, expected
        self.measurements: list[Measurement] = []

    def run(self, scenario: Scenario, server: Server) -> list[Measurement]:
        """Run a scenario once, compare some responses with the reference, and return the new measurements."""
        streams = [(scenario.name, scenario.requests, scenario.clients, self._rate(scenario))]
        if scenario.background is not None:
            streams.append((scenario.name + _BACKGROUND, scenario.background, 1, None))
        load = LoadSpec(
            port=server.port,
            streams=tuple(requests.stream(server.spec, clients, rate) for _, requests, clients, rate in streams),
            warmup_s=self.rounds.warmup_s,
            duration_s=self.rounds.duration_s,
            timeout_s=self.rounds.timeout_s,
        )
        with _busy_core() if scenario.busy_core else contextlib.nullcontext():
            outcome = server.run(load)
        found = []
        for (name, requests, clients, _), result in zip(streams, outcome.streams, strict=True):
            exact = accuracy(requests, result, self._expected, scores_are_cosines=server.spec.scores_are_cosines)
            found.append(Measurement(name, clients, result, exact, outcome.generator_cpu))
        self.measurements += found
        return found

    def values(self, name: str, metric: str) -> list[float]:
        """Return one metric of a scenario, round by round."""
        return [getattr(each.result, metric) for each in self.measurements if each.name == name]

    def summary(self) -> list[dict[str, Any]]:
        """Summarize the rounds of every scenario."""
        names = dict.fromkeys(each.name for each in self.measurements)
        return [_summarize([each for each in self.measurements if each.name == name]) for name in names]

    def _rate(self, scenario: Scenario) -> float | None:
        """Return the ratio of what the baseline reached in this round."""
        if scenario.load_ratio is None:
            return None
        return scenario.load_ratio * self.values(scenario.baseline, "requests_per_s")[-1]


def _summarize(rounds: Sequence[Measurement]) -> dict[str, Any]:
    failures: Counter[str] = Counter()
    for each in rounds:
        failures.update(each.result.failures)
    exact: dict[str, float] = {}
    for name, combine in (("min_cosine", min), ("mean_cosine", statistics.mean), ("max_score_difference", max)):
        known = [each.accuracy[name] for each in rounds if name in each.accuracy]
        if known:
            exact[name] = combine(known)
    return {
        "name": rounds[0].name,
        "clients": rounds[0].clients,
        "rounds": len(rounds),
        **{name: spread([getattr(each.result, name) for each in rounds]) for name in _METRICS},
        "succeeded": sum(each.result.succeeded for each in rounds),
        "failures": dict(failures),
        "first_failure": next((each.result.first_failure for each in rounds if each.result.first_failure), ""),
        **exact,
        "generator_cpu": max(each.generator_cpu for each in rounds),
    }


def summary_table(summary: Sequence[dict[str, Any]]) -> str:
    """Return the summaries as a table."""
    rows = [
        [
            row["name"],
            str(row["clients"]),
            median_and_range(row["texts_per_s"]),
            *(number(row[name]["median"]) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
            str(sum(row["failures"].values())),
            accuracy_text(row),
            f"{row['generator_cpu']:.0%}",
        ]
        for row in summary
    ]
    return table(_HEADER, rows)


def accuracy_text(row: dict[str, Any]) -> str:
    """Format min and mean cosine, or the largest difference of scores."""
    if "min_cosine" in row:
        return f"cos {row['min_cosine']:.6f} / {row['mean_cosine']:.6f}"
    return f"±{row['max_score_difference']:.6f}" if "max_score_difference" in row else "–"


@contextlib.contextmanager
def _busy_core() -> Iterator[None]:
    """Keep one core busy: the last one, on systems where a process can choose."""
    spin = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        if sys.platform == "linux":
            os.sched_setaffinity(spin.pid, {max(os.sched_getaffinity(0))})
        yield
    finally:
        spin.kill()
        spin.wait()
