"""A worker that dies after its files are gone or broken: the next one serves with what the last one had read."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
from certificate import make_certificate
from server_process import BODY, ServerProcess, until

from nearfar.http.gate.keys import make_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


pytestmark = pytest.mark.skipif(
    not shutil.which("openssl"), reason="openssl, which makes certificates, isn't installed"
)

FILES = ("nearfar.toml", "keys.toml", "cert.pem", "key.pem")
MODEL = '{ name = "sentence-transformers/all-MiniLM-L6-v2", engine = "fake", aliases = ["kept"] }'


class Site:
    """A server with its settings, keys and certificate as files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, entry = make_key("first")
        (folder / "keys.toml").write_text(entry)
        certificate, _ = make_certificate(folder)
        self.trust = ssl.create_default_context(cafile=certificate)
        lines = [f"models = [{MODEL}]", f'api_keys_file = "{folder}/keys.toml"']
        lines += [f'tls_cert_file = "{folder}/cert.pem"', f'tls_key_file = "{folder}/key.pem"']
        (folder / "nearfar.toml").write_text("\n".join(lines))

    def status(self, server: ServerProcess, key: str) -> int:
        """Embed with the model's alias, which only the settings have, and a key."""
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(verify=self.trust, timeout=60) as client:
            body = {**BODY, "model": "kept"}
            return client.post(f"{server.url}/v1/embeddings", json=body, headers=headers).status_code


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def server(site: Site) -> Iterator[ServerProcess]:
    with ServerProcess("--config", str(site.folder / "nearfar.toml")) as server:
        yield server


def kill_worker(server: ServerProcess) -> None:
    worker = server.workers()[0]
    os.kill(worker, signal.SIGKILL)
    until(lambda: worker not in server.workers() and bool(server.workers()))


def test_settings_keys_and_certificate_survive_files_that_are_gone_and_files_that_are_broken(
    site: Site, server: ServerProcess
) -> None:
    changes: list[tuple[str, Callable[[Path], object]]] = [
        ("gone", lambda file: file.unlink()),
        ("broken", lambda file: file.write_text("[[keys]]\nname = ")),
    ]
    answers = {"before": site.status(server, site.key)}
    for change, apply in changes:
        for name in FILES:
            apply(site.folder / name)
        kill_worker(server)
        answers[change] = site.status(server, site.key)
        answers[f"{change}, another key"] = site.status(server, "another")

    assert {
        "before": 200,
        "gone": 200,
        "gone, another key": 401,
        "broken": 200,
        "broken, another key": 401,
    } == answers
    assert server.process.poll() is None


def test_a_key_that_was_revoked_stays_revoked_when_the_file_breaks_and_the_worker_dies(
    site: Site, server: ServerProcess
) -> None:
    second, entry = make_key("second")
    (site.folder / "keys.toml").write_text(entry)
    until(lambda: site.status(server, second) == 200)
    server.until_logged("1 API keys loaded from")
    assert 200 == site.status(server, second)  # the worker has reported its new keys by now
    (site.folder / "keys.toml").write_text("[[keys]]\nname = ")
    kill_worker(server)

    assert (200, 401) == (site.status(server, second), site.status(server, site.key))


def test_a_worker_restarts_where_its_folder_and_the_temporary_one_are_gone(tmp_path: Path) -> None:
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    command = ("/bin/sh", "-c", f'cd {here}; exec "$@"', "sh")
    with ServerProcess("--engine", "fake", prefix=command, TMPDIR=str(temporary)) as server:
        here.rmdir()
        shutil.rmtree(temporary)
        kill_worker(server)
        server.wait_until_ready()
        answer = httpx.post(f"{server.url}/v1/embeddings", json=BODY, timeout=60)

    assert 200 == answer.status_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_worker_that_another_program_stops_is_replaced(number: signal.Signals) -> None:
    """As programs do that end the largest process when memory is short."""
    with ServerProcess("--engine", "fake") as server:
        worker = server.workers()[0]
        os.kill(worker, number)
        until(lambda: worker not in server.workers() and bool(server.workers()))
        server.wait_until_ready()
        answer = httpx.post(f"{server.url}/v1/embeddings", json=BODY, timeout=60)

    assert 200 == answer.status_code
