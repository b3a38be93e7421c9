"""What ``nearfar example`` prints is accepted by what it is for, and does what its comments say."""

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
from server_process import ServerProcess, free_port

from nearfar.cli.main import main
from nearfar.core.settings import BUILTIN_MODEL, load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
with_nginx = pytest.mark.skipif(not NGINX, reason="nginx isn't installed")
BODY = {"model": "text-embedding-3-small", "input": "hello"}


def example(name: str) -> str:
    result = CliRunner().invoke(main, ["example", name])
    assert 0 == result.exit_code
    return result.output


@pytest.mark.parametrize(
    ("name", "load", "offline", "overflow"),
    [("development", "demand", False, "error"), ("production", "start", True, "truncate")],
)
def test_the_settings_are_accepted(name: str, load: str, overflow: str, tmp_path: Path, *, offline: bool) -> None:
    file = tmp_path / "nearfar.toml"
    file.write_text(example(name))

    settings = load_settings({}, file=file, environ={})

    assert [BUILTIN_MODEL] == [model.name for model in settings.models]
    assert (load, offline, overflow) == (settings.load, settings.offline, settings.on_overflow)


def test_in_production_whatever_was_let_in_is_answered_at_a_stop(tmp_path: Path) -> None:
    file = tmp_path / "nearfar.toml"
    file.write_text(example("production"))

    settings = load_settings({}, file=file, environ={})

    assert settings.request_timeout_s <= settings.drain_timeout_s


class Pair:
    """Two servers, started by ``start``, and nginx's address."""

    def __init__(self, stack: AsyncExitStack, ports: list[int], url: str) -> None:
        self._stack = stack
        self._ports = ports
        self.url = url
        self.servers: list[ServerProcess] = []

    async def start(self, at: int) -> ServerProcess:
        """Start a server and wait until it is ready."""
        server = ServerProcess("--engine", "fake", "--port", str(self._ports[at]))
        await asyncio.to_thread(self._stack.enter_context, server)
        return server


@asynccontextmanager
async def behind_nginx() -> AsyncIterator[Pair]:
    """Run the example as it is, but for its ports, and for what of it needs another user than the one who tests."""
    front, *ports = (free_port() for _ in range(3))
    text = example("nginx")
    for written, port in (("listen 9000", front), ("127.0.0.1:9001", ports[0]), ("127.0.0.1:9002", ports[1])):
        assert written in text
        text = text.replace(written, f"{'listen ' * written.startswith('listen')}127.0.0.1:{port}")
    with tempfile.TemporaryDirectory() as name:  # pytest's own can't be entered by the user that nginx turns into
        process = start_nginx(Path(name), text)
        try:
            async with AsyncExitStack() as stack:
                pair = Pair(stack, ports, f"http://127.0.0.1:{front}")
                pair.servers = [await pair.start(at) for at in range(2)]
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
async def test_nginx_passes_on_what_clients_and_servers_say() -> None:
    async with behind_nginx() as pair, httpx.AsyncClient(base_url=pair.url, timeout=30) as client:
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
async def test_servers_restarted_in_turn_are_not_noticed(number: signal.Signals) -> None:
    """Eight callers ask all the while, and each answer is one: even those of a server that is killed are asked anew."""
    answers: list[httpx.Response] = []
    done = asyncio.Event()

    async def ask(client: httpx.AsyncClient) -> None:
        while not done.is_set():
            answers.append(await client.post("/v1/embeddings", json=BODY))

    async with behind_nginx() as pair, httpx.AsyncClient(base_url=pair.url, timeout=30) as client:
        callers = [asyncio.create_task(ask(client)) for _ in range(8)]
        for at in range(2):
            pair.servers[at].process.send_signal(number)
            await asyncio.to_thread(pair.servers[at].wait)
            pair.servers[at] = await pair.start(at)
            await asyncio.to_thread(pair.servers[at].until_said, "request")  # nginx has taken it back
        done.set()
        await asyncio.gather(*callers)

    assert {200} == {answer.status_code for answer in answers}
