"""What the tests of a server that restarts share: who its worker is, whether it answers, and waiting for that."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

    from server_process import ServerProcess

BODY = {"model": "text-embedding-3-small", "input": "hello"}


def worker_of(server: ServerProcess) -> int:
    """Give the process id of the server's worker."""
    asked = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True)  # noqa: S607
    return int(asked.stdout.split()[0])


def status_of(server: ServerProcess, path: str = "/health/ready") -> int:
    """Give the status of a GET; 0 where nobody answers."""
    try:
        return httpx.get(f"{server.url}{path}", timeout=30).status_code
    except httpx.TransportError:
        return 0


def until(condition: Callable[[], bool], limit_s: float = 60) -> float:
    """Wait until it holds; give the seconds that took. What is waited for is in another process."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, "it never came"
        time.sleep(0.01)
    return time.monotonic() - began
