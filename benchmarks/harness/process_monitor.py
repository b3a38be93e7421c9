"""Memory, threads and open files of a server's process tree, sampled from outside."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

_MIN_SAMPLES = 3  # a line fits any two points


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process tree. The peak is None on systems without /proc."""

    now_mib: float
    peak_mib: float | None

    def __str__(self) -> str:
        """Format both, in MiB."""
        return f"{self.now_mib:,.0f} MiB" + ("" if self.peak_mib is None else f", peak {self.peak_mib:,.0f}")


@dataclass(frozen=True)
class Sample:
    """Totals of a process tree at one moment, ``at_s`` after the monitor started."""

    at_s: float
    rss_mb: float
    threads: int
    files: int


class ProcessMonitor:
    """Sample a process tree in a background thread while the context is open. Linux only; no samples elsewhere.

    ``on_sample`` is called in that thread after every sample.
    """

    def __init__(self, pid: int, interval_s: float = 1.0, on_sample: Callable[[], None] = lambda: None) -> None:
        self._pid, self._interval_s, self._on_sample = pid, interval_s, on_sample
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                counts = [_counts(pid) for pid in process_tree(self._pid)]
            except OSError:  # a process has just exited, or there is no /proc
                continue
            rss_kib, threads, files = (sum(column) for column in zip(*counts, strict=True))
            self.samples.append(Sample(time.monotonic() - self._start, rss_kib * 1024 / 1e6, threads, files))
            self._on_sample()


def memory_of(pid: int) -> Memory:
    """Return the memory of a process tree. Pages that processes share count once in each."""
    tree = process_tree(pid)
    statuses = [_status(pid) for pid in tree]
    if not any(statuses):
        return Memory(sum(tree.values()) / 1024, None)
    now, peak = (sum(_field(status, name) for status in statuses) / 1024 for name in ("VmRSS", "VmHWM"))
    return Memory(now, peak)


def process_tree(root: int) -> dict[int, int]:
    """Return a process and its descendants: pid → resident KiB."""
    ps = shutil.which("ps") or "/bin/ps"
    listing = subprocess.run([ps, "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True).stdout  # noqa: S603 — fixed
    rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
    tree = {root}
    while children := {pid for pid, parent, _ in rows if parent in tree and pid not in tree}:
        tree |= children
    return {pid: rss for pid, _, rss in rows if pid in tree}


def _counts(pid: int) -> tuple[int, int, int]:
    """Return resident KiB, threads and open files of one process."""
    status, files = _status(pid), sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return _field(status, "VmRSS"), _field(status, "Threads"), files


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:  # no /proc, or the process has just exited
        return ""


def _field(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else 0


def memory_slope(samples: Sequence[Sample]) -> float:
    """Return memory growth in MB/min by linear regression; NaN with fewer than three samples."""
    if len(samples) < _MIN_SAMPLES:
        return float("nan")
    fit = statistics.linear_regression([each.at_s for each in samples], [each.rss_mb for each in samples])
    return fit.slope * 60


def growth(counts: Sequence[int]) -> float:
    """Return the median of the last quarter minus that of the first."""
    quarter = max(len(counts) // 4, 1)
    return statistics.median(counts[-quarter:]) - statistics.median(counts[:quarter]) if counts else 0.0
