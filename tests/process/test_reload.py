"""Reload at SIGHUP: a new worker takes over with the current settings; if it can't, the old one keeps serving."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from server_process import BODY, PLUGINS, ServerProcess, until

if TYPE_CHECKING:
    from collections.abc import Iterator

FAKE = 'models = [{ name = "sentence-transformers/all-MiniLM-L6-v2", engine = "fake", aliases = ["%s"] }]\n'


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "nearfar.toml"
    file.write_text(FAKE % "first")
    return file


@pytest.fixture
def server(settings: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--config", str(settings)) as server:
        yield server


def status(server: ServerProcess, model: str) -> int:
    return httpx.post(f"{server.url}/v1/embeddings", json={**BODY, "model": model}, timeout=60).status_code


def test_a_reload_loses_no_request_of_clients_without_retries(
    server: ServerProcess, measurements: dict[str, object]
) -> None:
    over, answers, slowest = False, list[int](), 0.0

    def send() -> None:
        nonlocal slowest
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not over:
                began = time.monotonic()
                answers.append(client.post("/v1/embeddings", json=BODY).status_code)
                slowest = max(slowest, time.monotonic() - began)
                time.sleep(0.005)

    with ThreadPoolExecutor(8) as threads:
        sending = [threads.submit(send) for _ in range(8)]
        workers = [server.workers()]
        for _ in range(2):
            server.process.send_signal(signal.SIGHUP)
            until(lambda: len(server.workers()) == 2)
            until(lambda: len(server.workers()) == 1)
            workers.append(server.workers())
        over = True
        for each in sending:
            each.result()

    measurements["answers"], measurements["slowest s"] = len(answers), round(slowest, 2)
    assert {200} == {*answers}
    assert 3 == len({pid for pids in workers for pid in pids})


def test_a_reload_with_broken_settings_changes_nothing_and_a_later_one_works(
    server: ServerProcess, settings: Path
) -> None:
    before = server.workers()
    for mistake, code in (
        ("models = [", 2),
        ('models = [{ name = "/nowhere/model" }]\n', 1),
        (FAKE % "second" + 'api_keys_file = "/nowhere/keys.toml"\n', 1),
        (FAKE % "second" + 'tls_cert_file = "/nowhere"\ntls_key_file = "/nowhere"\n', 1),
    ):
        settings.write_text(mistake)
        server.process.send_signal(signal.SIGHUP)
        server.until_logged(f"reload failed: the new worker exited with code {code}; keeping the current one")
        server.log.clear()
    assert (before, 200, 404) == (server.workers(), status(server, "first"), status(server, "second"))

    settings.write_text(FAKE % "second")
    server.process.send_signal(signal.SIGHUP)
    server.until_logged(
        "reload: starting a new worker, with the settings file, keys and models as they are now; host, port, variables "
        "and the command line stay as they were until a restart"
    )
    until(lambda: not {*before} & {*server.workers()})

    assert (404, 200) == (status(server, "first"), status(server, "second"))
    server.process.send_signal(signal.SIGTERM)
    assert 0 == server.wait()


def test_a_worker_that_dies_during_a_reload_is_replaced_at_once(server: ServerProcess) -> None:
    first = server.workers()[0]
    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(server.workers()) == 2)
    os.kill(first, signal.SIGKILL)

    server.until_logged("the worker was killed by SIGKILL after")
    assert 200 == status(server, "first")
    until(lambda: len(server.workers()) == 1)
    assert 200 == status(server, "first")


def test_a_reload_that_hangs_is_replaced_by_the_next_one_and_costs_no_service(
    server: ServerProcess, settings: Path
) -> None:
    first = server.workers()
    settings.unlink()
    os.mkfifo(settings)  # nothing writes to it, so the new worker waits for ever
    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(server.workers()) == 2)
    os.kill(first[0], signal.SIGKILL)

    assert 200 == status(server, "first")
    assert 2 == len(server.workers())
    settings.unlink()
    settings.write_text(FAKE % "second")
    server.process.send_signal(signal.SIGHUP)
    server.until_logged("reload: another one was requested; ending the new worker, which doesn't serve yet")
    until(lambda: status(server, "second") == 200)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_reload_that_is_requested_while_the_program_starts_is_heard(settings: Path) -> None:
    """The signal is sent as soon as it can't end the process, which is before the program's modules are imported."""
    command = [sys.executable, "-m", "nearfar", "serve", "--port", "0", "--config", str(settings)]
    environment = {**os.environ, "PYTHONPATH": str(PLUGINS)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: _is_blocked(process.pid, signal.SIGHUP))
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(signal.SIGHUP)
        assert process.stderr
        heard = any("reload: starting a new worker" in line for line in process.stderr)
        process.terminate()

    assert heard
    assert "msgspec" not in mapped


def _is_blocked(pid: int, number: int) -> bool:
    found = re.search(r"^SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(found and int(found[1], 16) >> (number - 1) & 1)
