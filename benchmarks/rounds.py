"""Measure cells on a running server, round by round, and sum the rounds up.

All cells are measured once before any is measured again, so that a machine that drifts over minutes drifts under all
of them.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orders import Figure, Order
from reference import Vectors, closeness
from tables import figure, figure_in_spread, spread, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cells import Cell
    from launch import Recipe, Server

_NUMBERS = ("texts_per_s", "requests_per_s", "p50_ms", "p95_ms", "p99_ms", "max_ms")
_BESIDE = "·beside"  # row of the other client of a cell
_HEADER = ("cell", "clients", "texts/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "failed", "exactness", "load CPU")


@dataclass(frozen=True)
class Row:
    """What one kind of clients got in one round of a cell."""

    name: str
    clients: int
    figure: Figure
    exactness: dict[str, float]
    cpu_share: float

    def line(self) -> str:
        """Tell it in a line, while the benchmark runs."""
        found = self.figure
        failed = f"  failed: {found.failures} {found.complaint}" if found.failures else ""
        return (
            f"{self.name:<26}{figure(found.texts_per_s):>9} texts/s  p50 {figure(found.p50_ms):>7}"
            f"  p99 {figure(found.p99_ms):>7} ms{failed}"
        )


@dataclass(frozen=True)
class Pace:
    """How long and how often every cell is measured."""

    rounds: int
    seconds: float
    warm_s: float = 0.5  # a guess: a second makes no difference to any cell


class Bench:
    """Measures cells on one server at a time and keeps the rows of all rounds."""

    def __init__(self, pace: Pace, expected: Vectors) -> None:
        self._pace, self._expected = pace, expected
        self.rows: list[Row] = []

    def measure(self, cell: Cell, server: Server, recipe: Recipe) -> list[Row]:
        """Run a cell once, check the values of some answers, and keep and give what came of it."""
        loads, counts = [cell.load], [cell.clients]
        if cell.beside is not None:
            loads, counts = [cell.load, cell.beside], [cell.clients, 1]
        rates = [self._rate(cell), None]
        streams = tuple(
            load.stream(recipe, count, rate) for load, count, rate in zip(loads, counts, rates, strict=False)
        )
        order = Order(port=server.port, streams=streams, warm_s=self._pace.warm_s, seconds=self._pace.seconds)
        with busy_neighbour() if cell.has_neighbour else contextlib.nullcontext():
            outcome = server.run(order)
        names = (cell.name, cell.name + _BESIDE)
        plain = recipe.has_plain_cosines
        rows = [
            Row(name, count, found, closeness(load, found, self._expected, plain=plain), outcome.cpu_share)
            for name, count, load, found in zip(names, counts, loads, outcome.figures, strict=False)
        ]
        self.rows += rows
        return rows

    def summary(self) -> list[dict[str, Any]]:
        """Sum up the rounds of every row."""
        names = dict.fromkeys(row.name for row in self.rows)
        return [_summed([row for row in self.rows if row.name == name]) for name in names]

    def _rate(self, cell: Cell) -> float | None:
        """Take the share of what the base cell reached last: in this round, a moment ago."""
        if cell.share is None:
            return None
        reached = [row.figure.requests_per_s for row in self.rows if row.name == cell.base]
        return cell.share * reached[-1]


def _summed(rows: Sequence[Row]) -> dict[str, Any]:
    failures: dict[str, int] = {}
    for row in rows:
        for how, count in row.figure.failures.items():
            failures[how] = failures.get(how, 0) + count
    exact: dict[str, float] = {}
    for name, worst in (("min_cosine", min), ("mean_cosine", statistics.mean), ("max_score_difference", max)):
        known = [row.exactness[name] for row in rows if name in row.exactness]
        if known:
            exact[name] = worst(known)
    return {
        "name": rows[0].name,
        "clients": rows[0].clients,
        "rounds": len(rows),
        **{name: spread([getattr(row.figure, name) for row in rows]) for name in _NUMBERS},
        "answered": sum(row.figure.answered for row in rows),
        "failures": failures,
        "complaint": next((row.figure.complaint for row in rows if row.figure.complaint), ""),
        **exact,
        "load_cpu_share": max(row.cpu_share for row in rows),
    }


def tabulate(summary: Sequence[dict[str, Any]]) -> str:
    """Lay the summed rows out as a table."""
    return table(_HEADER, [_cells(row) for row in summary])


def _cells(row: dict[str, Any]) -> list[str]:
    times = [figure(row[name]["median"]) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")]
    failed = sum(row["failures"].values())
    share = f"{row['load_cpu_share']:.0%}"
    return [
        row["name"],
        str(row["clients"]),
        figure_in_spread(row["texts_per_s"]),
        *times,
        str(failed),
        exactness_text(row),
        share,
    ]


def exactness_text(row: dict[str, Any]) -> str:
    """Write how near the checked answers were: least and mean cosine, or the largest difference of scores."""
    if "min_cosine" in row:
        return f"cos {row['min_cosine']:.6f} / {row['mean_cosine']:.6f}"
    if "max_score_difference" in row:
        return f"±{row['max_score_difference']:.6f}"
    return "–"


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """Keep one core busy: the last one, where the system lets a process choose."""
    spin = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        if sys.platform == "linux":
            os.sched_setaffinity(spin.pid, {max(os.sched_getaffinity(0))})
        yield
    finally:
        spin.kill()
        spin.wait()
