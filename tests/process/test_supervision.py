"""The supervisor against workers that hang, stop or don't end. Most are short programs that speak its protocol."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from server_process import BODY, ServerProcess, until

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

SUPERVISOR = """
import sys
from nearfar import Settings
from nearfar.process.supervisor import supervise
settings = Settings(port=0, log_format="json", **eval(sys.argv[1]))
sys.exit(supervise(settings, [sys.executable, "-c", sys.argv[2]], [], first_delay_s=0.01))
"""
# A worker prints its start, serves, and sends heartbeats ten times a second.
WORKER = """
import socket, sys, time
number, start = int(sys.argv[2]), sys.argv[3]
supervisor = socket.socket(fileno=number)
def serve():
    supervisor.send(b"serves\\n")
    print(start, "serves", flush=True)
    while True:
        time.sleep(0.1)
        supervisor.send(b"\\n")
def hang():
    print(start, "hangs", flush=True)
    time.sleep(600)
"""
SERVING = f"{WORKER}\nserve()"
HANGING_RELOAD = f"{WORKER}\nhang() if start == 'reload' else serve()"


class Supervised:
    """A supervisor in a process of its own. ``lines`` has its log's messages and what workers print."""

    def __init__(self, worker: str, *, notify: str = "", **settings: float) -> None:
        self._environment = {**os.environ, "NOTIFY_SOCKET": notify}
        self._command = [sys.executable, "-c", SUPERVISOR, repr(settings), worker]
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number in (signal.SIGTERM, signal.SIGTERM):
            self.process.send_signal(number)
        self.process.wait(60)
        self._reader.join(60)
        if self.process.stdout:
            self.process.stdout.close()

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        command = ["pgrep", "-P", str(self.process.pid)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def until(self, *expected: str) -> None:
        """Wait for lines that begin so, in any order; they count once each."""

        def is_there() -> bool:
            left = [*self.lines]
            for start in expected:
                line = next((line for line in left if line.startswith(start)), None)
                if line is None:
                    return False
                left.remove(line)
            return True

        until(is_there)

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(json.loads(line)["message"] if line.startswith("{") else line.strip())


def _is_alive(pid: int) -> bool:
    return _state(pid)[:1] not in {"", "Z"}


def stop(pid: int) -> None:
    """Stop a process. Signals that arrive before it has stopped would go first."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: _state(pid).startswith("T"))


def _state(pid: int) -> str:
    return subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout  # noqa: S607


def test_a_reload_that_hangs_is_ended_after_its_timeout_and_the_next_one_is_heard() -> None:
    with Supervised(HANGING_RELOAD, reload_timeout_s=0.5) as supervised:
        supervised.until("initial serves")
        serving = supervised.workers()
        for count in (1, 2):
            supervised.process.send_signal(signal.SIGHUP)
            failed = (
                "reload failed: the new worker doesn't serve after 0.5 s (reload_timeout_s); keeping the current one"
            )
            supervised.until(*["reload hangs"] * count, *[failed] * count)
            until(lambda: supervised.workers() == serving)


def test_a_stopped_worker_is_replaced_after_the_heartbeat_timeout() -> None:
    with Supervised(SERVING, heartbeat_timeout_s=2.0) as supervised:
        supervised.until("initial serves")
        stopped = supervised.workers()[0]
        began = time.monotonic()
        stop(stopped)
        supervised.until(
            "the worker sent no heartbeat for 2 s (heartbeat_timeout_s): its event loop is stuck; killing it",
            "the worker was killed by SIGKILL after",
            "restart serves",
        )
        lasted_s = time.monotonic() - began

    assert lasted_s > 1
    assert not _is_alive(stopped)


def test_no_heartbeat_counts_as_missed_while_the_supervisor_is_frozen_too() -> None:
    """As a control group is by its freezer, or a virtual machine: the clock goes on, and no process runs."""
    with Supervised(SERVING, heartbeat_timeout_s=1.0) as supervised:
        supervised.until("initial serves")
        workers = supervised.workers()
        frozen = [supervised.process.pid, *workers]
        for pid in frozen:
            stop(pid)
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 2.5)
        for pid in reversed(frozen):  # the supervisor last: it must not find its messages read
            os.kill(pid, signal.SIGCONT)
        supervised.process.send_signal(signal.SIGHUP)
        supervised.until("reload serves")

    assert not [line for line in supervised.lines if "heartbeat" in line]


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)],
    ids=lambda number: number.name,
)
def test_a_second_signal_ends_the_process_whatever_its_worker_does(
    first: signal.Signals, second: signal.Signals, systemd: socket.socket
) -> None:
    with Supervised(SERVING, notify=systemd.getsockname()) as supervised:
        supervised.until("initial serves")
        worker = supervised.workers()[0]
        stop(worker)
        supervised.process.send_signal(first)
        while b"STOPPING=1" not in systemd.recv(4096):
            continue
        supervised.process.send_signal(second)
        code = supervised.process.wait(60)

    assert -second == code
    until(lambda: not _is_alive(worker))


def test_a_stuck_worker_does_not_keep_the_process_from_ending_after_one_signal() -> None:
    with Supervised(SERVING, heartbeat_timeout_s=1.0, drain_timeout_s=600) as supervised:
        supervised.until("initial serves")
        stop(supervised.workers()[0])
        supervised.process.send_signal(signal.SIGTERM)
        code = supervised.process.wait(60)

    assert -signal.SIGTERM == code


def test_infinite_timeouts_are_no_limit() -> None:
    with ServerProcess(
        "--engine",
        "fake",
        NEARFAR_HEARTBEAT_TIMEOUT_S="inf",
        NEARFAR_RELOAD_TIMEOUT_S="inf",
        NEARFAR_DRAIN_TIMEOUT_S="inf",
    ) as server:
        worker = server.workers()[0]
        os.kill(worker, signal.SIGKILL)
        until(lambda: worker not in server.workers() and bool(server.workers()))
        server.process.send_signal(signal.SIGHUP)
        server.until_logged("reload: starting a new worker")
        until(lambda: len(server.workers()) == 1 and server.status() == 200)


def test_a_restart_that_cannot_open_its_model_is_tried_again(tmp_path: Path) -> None:
    """As when a network drive is away for a moment. At the first start it would be a mistake in the settings."""
    worker = f"""{WORKER}
import pathlib
tries = pathlib.Path({str(tmp_path)!r}) / "tries"
count = tries.stat().st_size if tries.exists() else 0
tries.write_text("." * (count + 1))
if start == "initial":
    supervisor.send(b"serves\\n")
    sys.exit(7)
serve() if count > 2 else sys.exit(1)
"""
    with Supervised(worker) as supervised:
        supervised.until("the worker exited with code 7", *["the worker exited with code 1"] * 2, "restart serves")


def test_a_held_interpreter_lock_is_noticed_and_the_worker_is_replaced(measurements: dict[str, object]) -> None:
    with ServerProcess("--engine", "fake", NEARFAR_HEARTBEAT_TIMEOUT_S="3") as server:
        worker = server.workers()[0]
        with suppress(httpx.TransportError):
            httpx.post(f"{server.url}/v1/embeddings", json={**BODY, "input": "freeze"}, timeout=60)
        server.until_logged("the worker sent no heartbeat for 3 s (heartbeat_timeout_s)")
        measurements["ready again after s"] = round(server.wait_until_ready(), 2)
        answer = httpx.post(f"{server.url}/v1/embeddings", json=BODY, timeout=60)

    assert 200 == answer.status_code
    assert not _is_alive(worker)


def test_a_shutdown_waits_for_an_answer_to_be_read_to_its_last_byte() -> None:
    """The client reads nothing for a while after the signal, longer than idle connections may take to close."""
    body = json.dumps({**BODY, "input": [f"text {number}" for number in range(2000)]}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with ServerProcess("--engine", "fake", NEARFAR_DRAIN_TIMEOUT_S="60") as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.connect(("127.0.0.1", server.port))
        client.sendall(head + body)
        server.until_logged("/v1/embeddings", "path")
        server.process.send_signal(signal.SIGTERM)
        server.until_logged("shutting down:")
        signaled = time.monotonic()
        until(lambda: time.monotonic() - signaled > 5.5)
        received = client.makefile("rb").read()
        code = server.wait()

    headers, _, answer = received.partition(b"\r\n\r\n")
    assert headers.startswith(b"HTTP/1.1 200")
    assert 2000 == len(json.loads(answer)["data"])
    assert 0 == code
