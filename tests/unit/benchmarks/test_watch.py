"""The watch over a server's memory sees the process that has the models, which the one that was started starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
CHILD = "held = bytearray(100_000_000); import time; time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"
WATCH = """
import sys
sys.path.insert(0, sys.argv[1])
import time
from watch import Watch
with Watch(int(sys.argv[2]), 0.1) as watch:
    until = time.monotonic() + 20
    while time.monotonic() < until and not (watch.samples and watch.samples[-1].rss_mb > 110):
        time.sleep(0.05)
last = watch.samples[-1]
print(last.rss_mb > 110, last.threads, last.files >= 6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_what_a_process_starts_is_counted_with_it() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True) as parent:
        try:
            command = [sys.executable, "-c", WATCH, str(BENCHMARKS), str(parent.pid)]
            seen = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        finally:
            subprocess.run(["pkill", "-P", str(parent.pid)], check=False)  # noqa: S607

    assert ["True", "2", "True"] == seen.split()
