"""A real ``nearfar serve``: granian in a process of its own, on a free port of this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

PLUGINS = Path(__file__).parents[1] / "plugins"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class ServerProcess:
    """Starts on entry and waits for the log to say that it serves; ends on exit.

    ``limits`` are a shell's words for what the process may have, such as ``ulimit -n 64``; ``ahead`` stands before the
    command.
    """

    def __init__(self, *arguments: str, ahead: Sequence[str] = (), limits: str = "", **environment: str) -> None:
        self.port = free_port()
        self.url = f"{'https' if '--tls-cert-file' in arguments else 'http'}://127.0.0.1:{self.port}"
        self.log: list[dict[str, Any]] = []
        self._command = [*ahead, sys.executable, "-m", "nearfar", "serve", "--port", str(self.port), *arguments]
        if limits:
            self._command = ["/bin/sh", "-c", f'{limits}; exec "$@"', "sh", *self._command]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEARFAR_")}
        self._environment = {**inherited, "PYTHONPATH": str(PLUGINS), **environment}
        self._ready = threading.Event()
        self._said = threading.Condition()
        self.is_slow = {"mlx", "cpu"} <= {*arguments}  # a hundred tokens a second

    def share(self, texts: list[str]) -> list[str]:
        """Give the texts, or of a slow engine's a few that are short."""
        return [text for text in texts if len(text) < 120][:40] if self.is_slow else texts

    def __enter__(self) -> Self:
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

    def until_said(self, start: str) -> None:
        """Wait for a line of the log that starts so."""
        with self._said:
            assert self._said.wait_for(lambda: any(entry["message"].startswith(start) for entry in self.log), 60)

    def wait(self) -> int:
        """Wait for the process to end; give its exit code."""
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()
            self._reader.join(10)
            if self.process.stderr:
                self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            entry = json.loads(line) if line.startswith("{") else {"message": line.rstrip()}
            with self._said:
                self.log.append(entry)
                self._said.notify_all()
            if entry["message"].startswith("serving on"):
                self._ready.set()
        self._ready.set()
