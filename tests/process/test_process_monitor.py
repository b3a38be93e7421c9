"""The process monitor includes the processes that a server starts."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from harness.process_monitor import ProcessMonitor, memory_of

CHILD = "block = bytearray(100_000_000); print(flush=True); import sys; sys.stdin.read()"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_child_processes_are_included() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin
        assert parent.stdout
        parent.stdout.readline()  # the child has its memory
        sampled = threading.Event()
        with ProcessMonitor(parent.pid, 0.01, on_sample=sampled.set) as monitor:
            assert sampled.wait(60)
        memory = memory_of(parent.pid)
        parent.stdin.close()

    sample = monitor.samples[0]
    assert sample.rss_mb > 110
    assert 2 == sample.threads
    assert sample.files >= 6
    assert memory.now_mib > 105
