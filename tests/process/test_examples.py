"""The examples of ``nearfar example`` are valid and do what their comments promise."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from click.testing import CliRunner
from server_process import BODY, ServerProcess, until

from nearfar.cli.main import main
from nearfar.core.settings import BUILTIN_MODEL, load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
with_nginx = pytest.mark.skipif(not NGINX, reason="nginx isn't installed")


def example(name: str) -> str:
    result = CliRunner().invoke(main, ["example", name])
    assert 0 == result.exit_code
    return result.output


@pytest.mark.parametrize(
    ("name", "load", "offline", "overflow"),
    [("development", "demand", False, "error"), ("production", "start", True, "truncate")],
)
def test_the_settings_are_valid(name: str, load: str, overflow: str, tmp_path: Path, *, offline: bool) -> None:
    file = tmp_path / "nearfar.toml"
    file.write_text(example(name))

    settings = load_settings({}, file=file, environ={})

    assert [BUILTIN_MODEL] == [model.name for model in settings.models]
    assert (load, offline, overflow) == (settings.load, settings.offline, settings.on_overflow)


def test_in_production_the_drain_outlasts_every_request(tmp_path: Path) -> None:
    file = tmp_path / "nearfar.toml"
    file.write_text(example("production"))

    settings = load_settings({}, file=file, environ={})

    assert settings.request_timeout_s <= settings.drain_timeout_s


class Pair:
    """Two servers, and nginx's socket."""

    def __init__(self, stack: AsyncExitStack, socket: Path) -> None:
        self._stack = stack
        self._socket = socket
        self.servers: list[ServerProcess] = []

    async def start(self, port: int = 0) -> ServerProcess:
        """Start a server and wait until it is ready."""
        server = ServerProcess("--engine", "fake", "--port", str(port))
        await asyncio.to_thread(self._stack.enter_context, server)
        return server

    def client(self) -> httpx.AsyncClient:
        """Return a client that sends its requests to nginx."""
        transport = httpx.AsyncHTTPTransport(uds=str(self._socket))
        return httpx.AsyncClient(base_url="http://localhost", transport=transport, timeout=30)


@asynccontextmanager
async def behind_nginx() -> AsyncIterator[Pair]:
    """Run the example as it is, but for its addresses and for paths that the test's user can't write."""
    async with AsyncExitStack() as stack:
        # Not pytest's own folder: the user that nginx becomes can't enter it.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pair = Pair(stack, folder / "front")
        pair.servers = [await pair.start(), await pair.start()]
        text = example("nginx")
        ports = {f"127.0.0.1:{9001 + at}": f"127.0.0.1:{server.port}" for at, server in enumerate(pair.servers)}
        for written, used in {"listen 9000": f"listen unix:{folder}/front", **ports}.items():
            assert written in text
            text = text.replace(written, used)
        process = start_nginx(folder, text)
        try:
            await asyncio.to_thread(until, (folder / "front").exists)
            yield pair
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 20)


def start_nginx(folder: Path, text: str) -> subprocess.Popen[bytes]:
    assert NGINX
    folder.chmod(0o755)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in kinds)
    conf = folder / "nginx.conf"
    conf.write_text(text.replace("http {", f"http {{ access_log off; {places}", 1))
    log = folder / "error.log"
    return subprocess.Popen([NGINX, "-c", conf, "-e", log, "-g", f"daemon off; pid {folder}/pid; error_log {log};"])


@with_nginx
async def test_nginx_forwards_request_ids_errors_and_hides_metrics() -> None:
    async with behind_nginx() as pair, pair.client() as client:
        many = [await client.post("/v1/embeddings", json=BODY, headers={"x-request-id": f"id-{at}"}) for at in range(8)]
        own = await client.post("/v1/embeddings", json=BODY)
        wrong = await client.post("/v1/embeddings", json={"model": "nobody", "input": "hello"})
        large = await client.post("/v1/embeddings", content=b"[" * 10_000_001)
        hidden = [await client.get("/metrics"), await client.post("/admin/models/load")]

    assert [f"id-{at}" for at in range(8)] == [answer.headers["x-request-id"] for answer in many]
    assert own.headers["x-request-id"]
    seen = [{entry.get("request_id") for entry in server.log} for server in pair.servers]
    assert all(ids & {f"id-{at}" for at in range(8)} for ids in seen), "one of the servers got nothing"
    assert (404, "model_not_found") == (wrong.status_code, wrong.json()["error"]["code"])
    assert (413, "error") == (large.status_code, next(iter(large.json())))
    assert [404, 404] == [answer.status_code for answer in hidden]


@with_nginx
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
async def test_restarting_the_servers_in_turn_loses_no_request(number: signal.Signals) -> None:
    """Eight clients send all the while. nginx sends requests of a killed server to the other one."""
    answers: list[httpx.Response] = []
    done = asyncio.Event()

    async def send(client: httpx.AsyncClient) -> None:
        while not done.is_set():
            answers.append(await client.post("/v1/embeddings", json=BODY))

    async with behind_nginx() as pair, pair.client() as client:
        clients = [asyncio.create_task(send(client)) for _ in range(8)]
        for at in range(2):
            pair.servers[at].process.send_signal(number)
            await asyncio.to_thread(pair.servers[at].wait)
            pair.servers[at] = await pair.start(pair.servers[at].port)
            await asyncio.to_thread(pair.servers[at].until_logged, "request")  # nginx has taken it back
        done.set()
        await asyncio.gather(*clients)

    assert {200} == {answer.status_code for answer in answers}
