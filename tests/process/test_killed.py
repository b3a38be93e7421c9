"""A worker that is killed under load, one that dies at every start, and one without its supervisor."""

from __future__ import annotations

import json
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
from server_process import BODY, PLUGINS, ServerProcess, until

if TYPE_CHECKING:
    from openai.types import CreateEmbeddingResponse

CALLS = 200


def _embed(client: openai.OpenAI, number: int) -> CreateEmbeddingResponse:
    return client.embeddings.create(model="text-embedding-3-small", input=[f"text {number}", "hello " * 100])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=lambda number: number.name)
def test_the_openai_client_gets_every_answer_although_the_worker_is_killed(
    number: signal.Signals, measurements: dict[str, object]
) -> None:
    with ServerProcess("--engine", "fake") as server, ThreadPoolExecutor(32) as threads:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=60)
        first = server.workers()[0]
        calls = [threads.submit(_embed, client, number) for number in range(CALLS)]
        until(lambda: sum(call.done() for call in calls) > CALLS // 10)
        left = CALLS - sum(call.done() for call in calls)
        os.kill(first, number)
        measurements["ready again after s"] = round(server.wait_until_ready(), 2)
        answers = [call.result() for call in calls]
        second = server.workers()[0]
        client.close()

    measurements["calls without an answer when it was killed"] = left
    assert left > 0
    assert CALLS == len(answers)
    assert first != second
    assert any(f"the worker was killed by {number.name}" in entry["message"] for entry in server.log)


def test_a_request_of_a_killed_worker_fails_and_the_next_one_waits_for_the_new_worker() -> None:
    """The port stays open, so no connection is refused while there is no worker."""
    with ServerProcess("--engine", "fake") as server:
        os.kill(server.workers()[0], signal.SIGSTOP)
        with ThreadPoolExecutor(1) as threads:
            cut = threads.submit(httpx.post, f"{server.url}/v1/embeddings", json=BODY, timeout=60)
            time.sleep(0.2)  # a stopped process can't report that a request has reached it
            os.kill(server.workers()[0], signal.SIGKILL)
            failure = cut.exception()
            after = httpx.post(f"{server.url}/v1/embeddings", json=BODY, timeout=60)

    assert failure is None or isinstance(failure, httpx.TransportError)
    assert 200 == after.status_code


def test_a_worker_ends_when_its_supervisor_is_killed() -> None:
    with ServerProcess("--engine", "fake") as server:
        worker = server.workers()[0]
        server.process.kill()
        server.process.wait()

        until(lambda: not _is_running(worker))

    assert 0 == server.status()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return not state.stdout.strip().startswith("Z") and bool(state.stdout.strip())


def test_a_low_limit_of_open_files_is_logged_and_every_request_is_answered() -> None:
    """With 64 files, more connections than that are served one after another."""
    with ServerProcess("--engine", "fake", limits="ulimit -n 64") as server, ThreadPoolExecutor(100) as threads:
        url = f"{server.url}/v1/embeddings"
        calls = [threads.submit(httpx.post, url, json=BODY, timeout=60) for _ in range(100)]
        answers = [call.result() for call in calls]

    assert "only 64 files may be open at once" in server.log[0]["message"]
    assert [200] * 100 == [answer.status_code for answer in answers]


def test_a_limit_of_files_that_is_too_low_is_one_log_line_and_code_1() -> None:
    words = "can't start: only 40 files may be open at once; the server needs 48: see ulimit -Hn"
    serve = [sys.executable, "-m", "nearfar", "serve", "--engine", "fake", "--port", "0"]
    command = ["/bin/sh", "-c", 'ulimit -n 40; exec "$@"', "sh", *serve]
    environment = os.environ | {"PYTHONPATH": str(PLUGINS)}

    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)

    assert 1 == ended.returncode
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [words] == [line["message"] for line in lines if line["level"] == "error"]
    assert "Traceback" not in ended.stderr


def _supervise(command: str) -> subprocess.CompletedProcess[str]:
    code = f"""
import sys
from nearfar import Settings
from nearfar.process.supervisor import supervise
sys.exit(supervise(Settings(port=0, log_format="human"), {command}, [], first_delay_s=0.01))
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_worker_that_cannot_be_started_is_one_log_line_and_code_1() -> None:
    """As when the limit of processes is reached; here because there is no such program."""
    ended = _supervise('["/nowhere/python"]')

    assert 1 == ended.returncode
    assert "no worker process can be started: No such file or directory; see ulimit -u and -n" in ended.stderr
    assert 1 == len(ended.stderr.splitlines())


def test_the_supervisor_gives_up_on_a_worker_that_dies_six_times_in_a_row() -> None:
    ended = _supervise('[sys.executable, "-c", "exit(7)"]')

    assert 1 == ended.returncode
    assert 5 == ended.stderr.count("the worker exited with code 7 after")
    assert "the worker exited with code 7, 6 times in a row within 60 s of its start; giving up" in ended.stderr
