"""A process from outside, over time: its memory, threads and open files, and whether they grow. Linux's /proc alone."""

from __future__ import annotations

import re
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType


@dataclass(frozen=True)
class Sample:
    """What a process held at a moment; ``at_s`` is since the watch began."""

    at_s: float
    rss_mb: float
    threads: int
    files: int


class Watch:
    """Looks at a process again and again, from entry to exit."""

    def __init__(self, pid: int, every_s: float = 1.0) -> None:
        self._folder, self._every_s = Path(f"/proc/{pid}"), every_s
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
                status = (self._folder / "status").read_text()
                files = sum(1 for _ in (self._folder / "fd").iterdir())
            except OSError:  # the process has ended, or this isn't Linux
                return
            rss_kb, threads = (int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0]) for name in _FIELDS)
            self.samples.append(Sample(time.monotonic() - self._began, rss_kb * 1024 / 1e6, threads, files))


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
