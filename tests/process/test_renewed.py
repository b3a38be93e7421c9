"""SIGHUP: another worker takes over with the settings that are there then, and where it can't, nothing changes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from restarts import BODY, until, worker_of
from server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAKE = 'models = [{ name = "sentence-transformers/all-MiniLM-L6-v2", engine = "fake", aliases = ["%s"] }]\n'


@pytest.fixture(autouse=True)
def _no_nohup() -> Iterator[None]:
    """Let what is started hear SIGHUP, though the tests themselves may be run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "nearfar.toml"
    file.write_text(FAKE % "first")
    return file


def status(server: ServerProcess, model: str) -> int:
    return httpx.post(f"{server.url}/v1/embeddings", json={**BODY, "model": model}, timeout=60).status_code


def workers(server: ServerProcess) -> list[str]:
    found = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return found.stdout.split()


def test_callers_that_never_ask_twice_notice_nothing(settings: Path, told: dict[str, object]) -> None:
    over, answers, slowest = False, list[int](), 0.0

    def ask(server: ServerProcess) -> None:
        nonlocal slowest
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not over:
                began = time.monotonic()
                answers.append(client.post("/v1/embeddings", json=BODY).status_code)
                slowest = max(slowest, time.monotonic() - began)
                time.sleep(0.005)

    with ServerProcess("--config", str(settings)) as server, ThreadPoolExecutor(8) as threads:
        first = worker_of(server)
        asking = [threads.submit(ask, server) for _ in range(8)]
        for _ in range(2):
            before = workers(server)
            server.process.send_signal(signal.SIGHUP)
            until(lambda: len(workers(server)) == 2)
            until(lambda: len(workers(server)) == 1 and workers(server) != before)  # noqa: B023 — called here and now
        over = True
        for each in asking:
            each.result()
        last = worker_of(server)

    told["answers"], told["slowest s"] = len(answers), round(slowest, 2)
    assert {200} == {*answers}
    assert first != last


def test_mistaken_settings_change_nothing_and_mended_ones_do(settings: Path) -> None:
    with ServerProcess("--config", str(settings)) as server:
        first = worker_of(server)
        for mistake in ("models = [", FAKE % "second" + 'engine = "abacus"\n' + 'models_ = ""\n'):
            settings.write_text(mistake)
            server.process.send_signal(signal.SIGHUP)
            server.until_said("not renewed: the new worker ended with code 2; the one before goes on")
            server.log.clear()
        assert ([str(first)], 200, 404) == (workers(server), status(server, "first"), status(server, "second"))

        settings.write_text(FAKE % "second")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: workers(server) != [str(first)] and len(workers(server)) == 1)

        assert (404, 200) == (status(server, "first"), status(server, "second"))
        server.process.send_signal(signal.SIGTERM)
        assert 0 == server.wait()


def test_a_model_that_cannot_be_opened_changes_nothing(settings: Path) -> None:
    with ServerProcess("--config", str(settings)) as server:
        first = worker_of(server)
        settings.write_text('models = [{ name = "/nowhere/model" }]\n')
        server.process.send_signal(signal.SIGHUP)
        server.until_said("not renewed: the new worker ended with code 1; the one before goes on")

        assert ([str(first)], 200) == (workers(server), status(server, "first"))


def test_a_worker_that_dies_while_the_next_one_opens_its_models_is_followed_by_it(settings: Path) -> None:
    with ServerProcess("--config", str(settings)) as server:
        first = worker_of(server)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: len(workers(server)) == 2)
        os.kill(first, signal.SIGKILL)

        assert 200 == status(server, "first")
        assert 1 == len(workers(server))
        server.until_said("the worker was ended by SIGKILL; the one that was to take over does so now")
