"""A real ``nearfar serve``: supervisor and worker in processes, on a port that the system picks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

PLUGINS = Path(__file__).parents[1] / "plugins"
BODY = {"model": "text-embedding-3-small", "input": "hello"}


def free_port() -> int:
    """Return a port that is free now, for programs that can't pick one themselves."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class ServerProcess:
    """Starts on entry and waits until the log has the URL; stops on exit.

    ``limits`` is a shell command that sets limits, such as ``ulimit -n 64``. ``prefix`` goes before the command.
    ``port`` and ``url`` are known once the server serves.
    """

    def __init__(self, *arguments: str, prefix: Sequence[str] = (), limits: str = "", **environment: str) -> None:
        self.port = 0
        self.url = ""
        self.log: list[dict[str, Any]] = []
        self._command = [*prefix, sys.executable, "-m", "nearfar", "serve", "--port", "0", *arguments]
        if limits:
            self._command = ["/bin/sh", "-c", f'{limits}; exec "$@"', "sh", *self._command]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEARFAR_")}
        self._state = tempfile.TemporaryDirectory()
        own = {"PYTHONPATH": str(PLUGINS), "NEARFAR_VERIFY": "false", "NEARFAR_STATE_DIR": self._state.name}
        self._environment = {**inherited, **own, **environment}
        self._ready = threading.Event()
        self._logged = threading.Condition()
        self.is_slow = {"mlx", "cpu"} <= {*arguments}  # a hundred tokens a second

    def share(self, texts: list[str]) -> list[str]:
        """Return the texts, or for a slow engine a few short ones."""
        return [text for text in texts if len(text) < 120][:40] if self.is_slow else texts

    def __enter__(self) -> Self:
        with _default_hangup():
            self.process = subprocess.Popen(self._command, env=self._environment, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.wait(60), "neither serving nor ended after a minute"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.wait()

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)  # noqa: S607
        return [int(pid) for pid in found.stdout.split()]

    def status(self, path: str = "/health/ready") -> int:
        """Return the status of a GET; 0 without an answer."""
        try:
            return httpx.get(f"{self.url}{path}", timeout=30).status_code
        except httpx.TransportError:
            return 0

    def wait_until_ready(self) -> float:
        """Wait until the models are open. Return the seconds that took."""
        return until(lambda: self.status() == 200)

    def until_logged(self, start: str, field: str = "message") -> None:
        """Wait for a log line with a field that starts so."""

        def is_logged() -> bool:
            return any(entry.get(field, "").startswith(start) for entry in self.log)

        with self._logged:
            assert self._logged.wait_for(is_logged, 60)

    def wait(self) -> int:
        """Wait for the process to end. Return its exit code. Raises AssertionError, with the log, if it doesn't."""
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired as error:
            lines = "\n".join(str(entry) for entry in self.log[-20:])
            raise AssertionError(f"the server didn't end; its last log lines:\n{lines}") from error
        finally:
            for worker in self.workers():  # without its supervisor it would keep the log open
                os.kill(worker, signal.SIGKILL)
            self.process.kill()
            self._reader.join(10)
            if self.process.stderr:
                self.process.stderr.close()
            self._state.cleanup()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            entry = json.loads(line) if line.startswith("{") else {"message": line.rstrip()}
            with self._logged:
                self.log.append(entry)
                self._logged.notify_all()
            if entry["message"].startswith("serving on"):
                self.url = entry["message"].split()[2]
                self.port = int(self.url.rpartition(":")[2])
                self._ready.set()
        self._ready.set()


@contextmanager
def _default_hangup() -> Iterator[None]:
    """Start processes with SIGHUP unignored, even if the tests run under nohup."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change this, and it is needed only for reloads
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def until(condition: Callable[[], bool], limit_s: float = 60) -> float:
    """Poll until the condition is true, which another process causes. Return the seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, "it never became true"
        time.sleep(0.01)
    return time.monotonic() - began
