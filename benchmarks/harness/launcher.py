"""Start a server in a separate process, wait for its first vector, run load against it, stop it.

Listens on and connects to 127.0.0.1 only.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from harness.load.spec import LoadResult, LoadSpec
from harness.process_monitor import Memory, memory_of

if TYPE_CHECKING:
    from types import TracebackType

BENCHMARKS = Path(__file__).parents[1]
HOST = "127.0.0.1"
_POLL_S = 0.01  # how often to try a starting server; a refused connection costs it nothing
_ANSWER_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 40.0


class StartError(Exception):
    """The server exited, or returned no vector, instead of starting."""


@dataclass(frozen=True, kw_only=True)
class LaunchSpec:
    """How to start a server and where it answers. ``{port}`` in the command is replaced by a free port."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    path: str = "/v1/embeddings"
    rerank_path: str = "/v2/rerank"  # empty if it has none
    model: str = "text-embedding-3-small"
    scores_are_cosines: bool = False  # otherwise (1 + cosine) / 2, as nearfar's
    start_timeout_s: float = 180.0


def nearfar(
    *, model: str | None = None, engine: str | None = None, device: str | None = None, dtype: str | None = None
) -> LaunchSpec:
    """Return how to start ``nearfar serve``; None means its default."""
    command = [sys.executable, "-m", "nearfar", "serve", *([model] if model else []), "--port", "{port}"]
    for option, value in (("--engine", engine), ("--device", device), ("--dtype", dtype)):
        command += [option, value] if value else []
    return LaunchSpec(command=tuple(command), environment={"HF_HUB_OFFLINE": "1"} if model is None else {})


def model_folder(model: str | None) -> str:
    """Return the model's name or folder for sentence-transformers: the built-in model's folder for None."""
    from nearfar.models.hub.checkpoint import find_builtin

    return model or str(find_builtin().folder)


def run_module(module: str, stdin: str) -> str:
    """Run a module of this package in a separate process and return its stdout."""
    paths = [str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", module]
    return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout  # noqa: S603 — our own modules


class Server:
    """A running server. Entering waits for its first vector; leaving stops it."""

    def __init__(self, spec: LaunchSpec, log: Path) -> None:
        self.spec, self._log = spec, log
        self.port = free_port()
        self.start_s = 0.0  # from process start to the first vector

    def __enter__(self) -> Self:
        command = [part.replace("{port}", str(self.port)) for part in self.spec.command]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEARFAR_")}
        environment = {**inherited, **self.spec.environment}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            start = time.perf_counter()
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 — the benchmark's own table of commands
        try:
            self._wait_for_first_vector(start + self.spec.start_timeout_s)
        except BaseException:
            self._stop()
            raise
        self.start_s = time.perf_counter() - start
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        """Return the pid of the process that was started."""
        return self._process.pid

    def run(self, load: LoadSpec) -> LoadResult:
        """Run the load generator against this server."""
        return LoadResult.from_json(run_module("harness.load.generator", load.to_json()))

    def memory(self) -> Memory:
        """Return the memory of the server's processes."""
        return memory_of(self.pid)

    def _wait_for_first_vector(self, deadline: float) -> None:
        body = json.dumps({"model": self.spec.model, "input": "hello"})
        last = ""
        while time.perf_counter() < deadline:
            if self._process.poll() is not None:
                raise StartError(f"exited with {self._process.returncode}; see {self._log}")
            connection = http.client.HTTPConnection(HOST, self.port, timeout=_ANSWER_TIMEOUT_S)
            try:
                connection.request("POST", self.spec.path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                last = response.read().decode()
                if response.status == http.client.OK and json.loads(last)["data"][0]["embedding"]:
                    return
            except (OSError, http.client.HTTPException) as error:
                last = last or repr(error)
            finally:
                connection.close()
            time.sleep(_POLL_S)
        raise StartError(f"returned no vector in {self.spec.start_timeout_s:.0f} s but: {last[:300]}; see {self._log}")

    def _stop(self) -> None:
        """Terminate the server; after a timeout, kill its process group."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def stop_on_sigterm() -> None:
    """Exit normally on SIGTERM, so that the server is stopped as well."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
