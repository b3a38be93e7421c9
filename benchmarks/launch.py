"""A server in a process of its own: start it, wait for its first vector, read its memory, end it.

Only ever listens on and talks to this machine. Knows nothing of what the server is.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from orders import Order, Outcome

if TYPE_CHECKING:
    from types import TracebackType

_HOST = "127.0.0.1"
_LOOK_S = 0.01  # how often a starting server is asked; a refused connection costs it nothing
_START_S = 180.0  # the longest start that is waited for
_STOP_S = 40.0
_LOAD = Path(__file__).with_name("load.py")


class StartError(Exception):
    """A server ended, or gave no vector, instead of starting."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a server is started. ``{port}`` in the command is replaced by a free one."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    path: str = "/v1/embeddings"
    rerank_path: str = "/v2/rerank"  # empty where it has none
    model: str = "text-embedding-3-small"
    has_plain_cosines: bool = False  # for scores, where ours are (1 + cosine) / 2


@dataclass(frozen=True)
class Memory:
    """What a server's processes hold, in MiB. The peak is None where the system doesn't keep it."""

    now_mib: float
    peak_mib: float | None


class Server:
    """A running server. Starts on entry, which waits for the first vector; ends on exit."""

    def __init__(self, recipe: Recipe, log: Path) -> None:
        self._recipe, self._log = recipe, log
        self.port = free_port()
        self.start_s = 0.0  # from the process' start to its first vector

    def __enter__(self) -> Self:
        command = [part.replace("{port}", str(self.port)) for part in self._recipe.command]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEARFAR_")}
        environment = {**inherited, **self._recipe.environment}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            began = time.perf_counter()
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 — the benchmark's own table of commands
        try:
            self._await_first_vector(began + _START_S)
        except BaseException:
            self._end()
            raise
        self.start_s = time.perf_counter() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """Give the process that was started."""
        return self._process.pid

    def run(self, order: Order) -> Outcome:
        """Let the load generator carry out an order against this server."""
        command = [sys.executable, str(_LOAD)]
        done = subprocess.run(command, input=order.dump(), stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 — our own file
        return Outcome.load(done.stdout)

    def memory(self) -> Memory:
        """Add up the memory of the server's processes. Pages that they share count once in each."""
        pids = family(self._process.pid)
        statuses = [_status(pid) for pid in pids]
        if not any(statuses):
            return Memory(sum(pids.values()) / 1024, None)
        now, peak = (sum(_field(status, name) for status in statuses) / 1024 for name in ("VmRSS", "VmHWM"))
        return Memory(now, peak)

    def _await_first_vector(self, limit: float) -> None:
        body = json.dumps({"model": self._recipe.model, "input": "hello"})
        said = ""
        while time.perf_counter() < limit:
            if self._process.poll() is not None:
                raise StartError(f"ended with {self._process.returncode}; {self._log} says why")
            connection = http.client.HTTPConnection(_HOST, self.port, timeout=_START_S)
            try:
                connection.request("POST", self._recipe.path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                said = answer.read().decode()
                if answer.status == http.client.OK and json.loads(said)["data"][0]["embedding"]:
                    return
            except (OSError, http.client.HTTPException) as error:
                said = said or repr(error)
            finally:
                connection.close()
            time.sleep(_LOOK_S)
        raise StartError(f"gave no vector in {_START_S:.0f} s, but: {said[:300]}; see {self._log}")

    def _end(self) -> None:
        """Ask the server to end; after a while, make its whole session end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind((_HOST, 0))
        port: int = taken.getsockname()[1]
        return port


def family(root: int) -> dict[int, int]:
    """Find a process and its descendants: pid → resident KiB."""
    ps = shutil.which("ps") or "/bin/ps"
    listing = subprocess.run([ps, "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True).stdout  # noqa: S603 — fixed
    rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
    family = {root}
    while found := {pid for pid, parent, _ in rows if parent in family and pid not in family}:
        family |= found
    return {pid: rss for pid, _, rss in rows if pid in family}


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:  # no /proc here, or the process has just ended
        return ""


def _field(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) if found else 0
