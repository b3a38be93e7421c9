"""Reload at SIGHUP: a new worker takes over with the current settings; if it can't, the old one keeps serving."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from server_process import BODY, ServerProcess, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def test_a_worker_that_dies_during_a_reload_is_replaced_by_the_new_one(server: ServerProcess) -> None:
    first = server.workers()[0]
    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(server.workers()) == 2)
    os.kill(first, signal.SIGKILL)

    assert 200 == status(server, "first")
    assert 1 == len(server.workers())
    server.until_logged("the worker was killed by SIGKILL; the one that a reload started takes its place")
