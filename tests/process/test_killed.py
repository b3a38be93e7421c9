"""A worker that is killed under load, one that can't live, and one whose parent is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import openai
import pytest
from restarts import BODY, status_of, until, worker_of
from server_process import ServerProcess, free_port

if TYPE_CHECKING:
    from openai.types import CreateEmbeddingResponse

CALLS = 200


def _ask(client: openai.OpenAI, number: int) -> CreateEmbeddingResponse:
    return client.embeddings.create(model="text-embedding-3-small", input=[f"text {number}", "hello " * 100])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=lambda number: number.name)
def test_the_official_client_gets_everything_through_though_the_worker_is_killed(
    number: signal.Signals, told: dict[str, object]
) -> None:
    with ServerProcess("--engine", "fake") as server, ThreadPoolExecutor(32) as threads:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=60)
        first = worker_of(server)
        calls = [threads.submit(_ask, client, number) for number in range(CALLS)]
        until(lambda: sum(call.done() for call in calls) > CALLS // 10)
        left = CALLS - sum(call.done() for call in calls)
        os.kill(first, number)
        told["back after s"] = round(until(lambda: status_of(server) == 200), 2)
        answers = [call.result() for call in calls]
        second = worker_of(server)
        client.close()

    told["calls that had no answer when it was killed"] = left
    assert left > 0
    assert CALLS == len(answers)
    assert first != second
    assert any(f"the worker was ended by {number.name}" in entry["message"] for entry in server.log)


def test_a_caller_without_retries_sees_the_connection_end_and_the_next_one_waits() -> None:
    """The port stays open, so nobody is refused a connection while there is no worker."""
    with ServerProcess("--engine", "fake") as server:
        os.kill(worker_of(server), signal.SIGSTOP)
        with ThreadPoolExecutor(1) as threads:
            cut = threads.submit(httpx.post, f"{server.url}/v1/embeddings", json=BODY, timeout=60)
            time.sleep(0.2)  # nothing tells when a process that is stopped has been sent something
            os.kill(worker_of(server), signal.SIGKILL)
            ended = cut.exception()
            after = httpx.post(f"{server.url}/v1/embeddings", json=BODY, timeout=60)

    assert ended is None or isinstance(ended, httpx.TransportError)
    assert 200 == after.status_code


def test_a_worker_whose_parent_is_killed_ends() -> None:
    with ServerProcess("--engine", "fake") as server:
        worker = worker_of(server)
        server.process.kill()
        server.process.wait()

        until(lambda: not _is_there(worker), 30)

    assert status_of(server) == 0


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)  # noqa: S607
    return not state.stdout.strip().startswith("Z") and bool(state.stdout.strip())


def test_few_files_are_warned_of_and_everybody_is_answered_still() -> None:
    """With 64 files, more callers than that are answered one after another."""
    with ServerProcess("--engine", "fake", limits="ulimit -n 64") as server, ThreadPoolExecutor(100) as threads:
        url = f"{server.url}/v1/embeddings"
        calls = [threads.submit(httpx.post, url, json=BODY, timeout=60) for _ in range(100)]
        answers = [call.result() for call in calls]

    assert "only 64 files may be open at once" in server.log[0]["message"]
    assert [200] * 100 == [answer.status_code for answer in answers]


def test_a_worker_that_cannot_be_started_is_told_in_one_sentence() -> None:
    """As where no more processes are allowed; here because there is no such program."""
    code = f"""
import sys
from nearfar import Settings
from nearfar.process.supervisor import supervise
sys.exit(supervise(Settings(port={free_port()}, log_format="human"), ["/nowhere/python"], []))
"""

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert 1 == ended.returncode
    assert "no worker process can be started: No such file or directory; see ulimit -u and -n" in ended.stderr
    assert 1 == len(ended.stderr.splitlines())


def test_a_worker_that_dies_again_and_again_is_given_up() -> None:
    """It gets six attempts, with longer and longer pauses; then whoever runs the program has to look."""
    code = f"""
import sys
from nearfar import Settings
from nearfar.process import supervisor
supervisor._PAUSE_S = 0.01
sys.exit(supervisor.supervise(Settings(port={free_port()}, log_format="human"), [sys.executable, "-c", "exit(7)"], []))
"""

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert 1 == ended.returncode
    assert 5 == ended.stderr.count("the worker ended with code 7 after")
    assert "that was 6 in a row within a minute of their start" in ended.stderr
