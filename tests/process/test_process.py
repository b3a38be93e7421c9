"""The process as an operator sees it: stopping under load, refusing to start, exit codes."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from checkpoints import write_transformer
from server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

IN_FLIGHT = 80
ABSENT_DEVICE = "cuda" if sys.platform == "darwin" else "mps"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_under_load_loses_no_request(number: signal.Signals, tmp_path: Path) -> None:
    """80 requests run or wait at the signal. Each is answered, later ones get 503, and the exit code is 0."""
    hold = tmp_path / "hold"
    environment = {"FAKE_ENGINE_HOLD": str(hold), "NEARFAR_DRAIN_TIMEOUT_S": "600"}
    with ServerProcess("--engine", "fake", **environment) as server:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
            hold.touch()
            texts = ["some words of a request in flight " * 24 + str(number) for number in range(2 * IN_FLIGHT)]
            bodies = [
                {"model": "text-embedding-3-small", "input": texts[at : at + 2]} for at in range(0, len(texts), 2)
            ]
            calls = [asyncio.create_task(client.post("/v1/embeddings", json=body)) for body in bodies]
            await _until_accepted(client, *calls)
            server.process.send_signal(number)
            refused = await _first_refusal(client)
            hold.unlink()
            answers = await asyncio.gather(*calls)
            code = await asyncio.to_thread(server.wait)

    assert [200] * IN_FLIGHT == [answer.status_code for answer in answers]
    assert "1" == refused.headers["retry-after"]
    assert "server_error" == refused.json()["error"]["type"]
    assert 0 == code


async def test_a_hung_forward_does_not_keep_the_process_from_exiting() -> None:
    with ServerProcess("--engine", "fake", NEARFAR_DRAIN_TIMEOUT_S="0.5") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            body = {"model": "text-embedding-3-small", "input": ["hang", "hang"]}
            call = asyncio.create_task(client.post("/v1/embeddings", json=body))
            await _until_accepted(client, call)
            server.process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(server.wait)
            call.cancel()

    assert -signal.SIGTERM == code


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)], ids=lambda sent: sent.name
)
async def test_a_second_signal_kills_the_process_at_once(first: signal.Signals, second: signal.Signals) -> None:
    with ServerProcess("--engine", "fake", NEARFAR_DRAIN_TIMEOUT_S="600") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            body = {"model": "text-embedding-3-small", "input": ["hang"]}
            call = asyncio.create_task(client.post("/v1/embeddings", json=body))
            await _until_accepted(client, call)
            server.process.send_signal(first)
            await asyncio.to_thread(server.until_logged, "shutting down: 1 requests in flight, which may take 600 s")
            server.process.send_signal(second)
            code = await asyncio.to_thread(server.wait)
            call.cancel()

    assert -second == code


def test_a_server_under_nohup_survives_a_hangup() -> None:
    with ServerProcess("--engine", "fake", prefix=["nohup"]) as server:
        server.process.send_signal(signal.SIGHUP)
        answer = httpx.get(f"{server.url}/health/ready", timeout=60)

    assert 200 == answer.status_code


def test_an_unfinished_upload_does_not_keep_the_process_from_exiting() -> None:
    with (
        ServerProcess("--engine", "fake", NEARFAR_DRAIN_TIMEOUT_S="0.5", NEARFAR_RECEIVE_TIMEOUT_S="600") as server,
        socket.create_connection(("127.0.0.1", server.port)) as half,
    ):
        half.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert 200 == httpx.get(f"{server.url}/health/ready", timeout=60).status_code
        server.process.send_signal(signal.SIGTERM)
        server.wait()


async def _until_accepted(client: httpx.AsyncClient, *calls: asyncio.Task[httpx.Response]) -> None:
    """Wait until each call waits, runs or is answered, so that a signal comes too late to refuse it."""
    accepted = 0.0
    async with asyncio.timeout(60):
        while accepted < len(calls):
            accepted = sum(call.done() for call in calls)  # before the others are counted: none counts twice
            lines = (await client.get("/metrics")).text.splitlines()
            accepted += sum(float(line.split()[-1]) for line in lines if line.startswith("nearfar_queue_requests{"))


async def _first_refusal(client: httpx.AsyncClient) -> httpx.Response:
    """Send a request once the server drains; one that is sent before waits for the engine."""
    while True:
        ready = await client.get("/health/ready")
        if ready.status_code == 503:
            return await client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": "late"})


def _start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nearfar", "serve", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "no API key is set"),  # noqa: S104 — it is refused
        (["--port", "-1"], "command line: port:"),
        (["--dtype", "float8"], "command line: dtype:"),
        (["--workers", "2"], "nearfar example nginx"),
        (["--config", "nowhere.toml"], "nowhere.toml: can't be read"),
    ],
)
def test_a_bad_option_is_one_message_and_exit_code_2(arguments: list[str], message: str) -> None:
    ended = _start(*arguments)

    assert 2 == ended.returncode
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-model"], "neither a folder nor a Hugging Face name"),
        (["--offline", "someone/some-model"], "not on this disk, and --offline forbids"),
        (["--engine", "abacus"], "engine 'abacus'"),
        (["--device", ABSENT_DEVICE], f"torch sees no {ABSENT_DEVICE} device"),
    ],
)
def test_a_model_that_cannot_be_opened_is_one_error_and_exit_code_1(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    with ServerProcess(*arguments, HF_HOME=str(tmp_path)) as server:
        code = server.wait()

    assert 1 == code
    assert [True] == [message in entry["message"] for entry in server.log if entry["level"] == "error"]


def test_models_can_be_arguments_and_options(tmp_path: Path) -> None:
    first, second = (write_transformer(tmp_path / name, "bert") for name in ("first", "second"))

    with ServerProcess(str(first), "--model", str(second), "--engine", "fake") as server:
        listed = httpx.get(f"{server.url}/v1/models", timeout=60).json()["data"]

    assert ["first", "second"] == [model["id"] for model in listed]


def test_a_taken_port_is_one_log_line_and_exit_code_1() -> None:
    """Taken by another nearfar: granian alone would share the port."""
    with ServerProcess("--engine", "fake", "--host", "localhost") as server:
        ended = _start("--port", str(server.port), "--log-format", "human")

    assert 1 == ended.returncode
    assert [True] == [f"can't listen on 127.0.0.1:{server.port}: Address already in use" in ended.stderr.strip()]
    assert "another program listens there: stop it, or use --port with another number" in ended.stderr
    assert 1 == len(ended.stderr.splitlines())
