"""A process, and what it started, from outside, over time: memory, threads, open files, and whether they grow.

Linux's /proc alone.
"""

from __future__ import annotations

import re
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from launch import family

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType


@dataclass(frozen=True)
class Sample:
    """What they held together at a moment; ``at_s`` is since the watch began."""

    at_s: float
    rss_mb: float
    threads: int
    files: int


class Watch:
    """Looks at a process, and at those that it started, again and again, from entry to exit."""

    def __init__(self, pid: int, every_s: float = 1.0) -> None:
        self._pid, self._every_s = pid, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                held = [_held(Path(f"/proc/{pid}")) for pid in family(self._pid)]
            except (OSError, IndexError):  # one has just ended, or this isn't Linux
                continue
            rss_kb, threads, files = (sum(counts) for counts in zip(*held, strict=True))
            self.samples.append(Sample(time.monotonic() - self._began, rss_kb * 1024 / 1e6, threads, files))


def _held(process: Path) -> tuple[int, int, int]:
    """Give resident KiB, threads and open files."""
    status = (process / "status").read_text()
    rss_kb, threads = (int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0]) for name in _FIELDS)
    return rss_kb, threads, sum(1 for _ in (process / "fd").iterdir())


_FIELDS = ("VmRSS", "Threads")


def mb_a_minute(samples: Sequence[Sample]) -> float:
    """Fit a line through the memory; NaN where there are too few samples for one."""
    if len(samples) < 3:  # noqa: PLR2004 — two give a line through anything
        return float("nan")
    fitted = statistics.linear_regression([each.at_s for each in samples], [each.rss_mb for each in samples])
    return fitted.slope * 60


def growth(counts: Sequence[int]) -> float:
    """Compare the median of the last quarter with that of the first."""
    quarter = max(len(counts) // 4, 1)
    return statistics.median(counts[-quarter:]) - statistics.median(counts[:quarter]) if counts else 0.0
