"""Do official clients work unchanged? Each runs in a separate environment against ``nearfar serve``.

``make test-clients``, or ``python tests/client_matrix/run.py --only openai cohere``. clients.toml lists the clients;
one server with the built-in model serves all of them. The exit code is 1 if a client is missing or can't be installed,
if a check failed, or if a check didn't run.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from environments import BUILT, HERE, NotInstalledError, environment
from flaky import flaky
from rows import Client, Row, checks_passed, read_clients, table, unlisted

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

START_TIMEOUT_S = 180  # the first start converts the model for OpenVINO


class NoServerError(Exception):
    """The server didn't start."""


@contextmanager
def serving(key: str) -> Iterator[str]:
    """Run ``nearfar serve`` on a free port and yield its URL once it is ready. An empty key means none."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEARFAR_")}
    folders = {"NEARFAR_CACHE_DIR": str(BUILT / "cache"), "NEARFAR_STATE_DIR": str(BUILT / "state")}
    settings = folders | ({"NEARFAR_API_KEY": key} if key else {})
    BUILT.mkdir(exist_ok=True)
    with (BUILT / "server.log").open("wb") as log, tempfile.TemporaryDirectory() as state:
        settings["NEARFAR_STATE_DIR"] = state
        command = [sys.executable, "-m", "nearfar", "serve", "--port", str(port)]
        process = subprocess.Popen(command, env={**inherited, **settings}, stderr=log)
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    raise NoServerError(f"the server isn't ready; see {BUILT / 'server.log'}")


def install(clients: Sequence[Client]) -> dict[str, str]:
    """Install the environments, two at a time as pip and npm keep a core busy; return each failed one's error."""
    names = list(dict.fromkeys(client.environment for client in clients))
    with ThreadPoolExecutor(2) as workers:
        return {name: error for name, error in zip(names, workers.map(_install, names), strict=True) if error}


def _install(name: str) -> str:
    try:
        environment(name).ensure_installed()
    except NotInstalledError as error:
        return str(error)
    return ""


def run_client(client: Client, variables: dict[str, str]) -> Row:
    """Run one client's tests; print their output if they fail."""
    installed = environment(client.environment)
    version = installed.version(client.package)
    report, output = installed.report(client, variables)
    row = Row(client, version, checks_passed(report) if report else {})
    print(f"{client.path}: {'pass' if row.passes else 'FAIL'}", flush=True)
    if not row.passes:
        print(output, flush=True)
    return row


def select(clients: Sequence[Client], arguments: argparse.Namespace) -> list[Client]:
    """Return the clients to run. Exits on a name that selects none."""
    for name in arguments.only:
        if not any(client.is_named(name) for client in clients):
            raise SystemExit(f"no client is named {name}")
    return [
        client
        for client in clients
        if arguments.language in {None, client.language}
        and (not arguments.only or any(client.is_named(name) for name in arguments.only))
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="packages, environments or files")
    parser.add_argument("--language", choices=["python", "node"])
    parser.add_argument("--url", help="use a running server; its API key is read from NEARFAR_API_KEY")
    return parser.parse_args()


def main() -> int:
    """Run the selected clients, print the table, return the exit code."""
    arguments = parse_arguments()
    clients = read_clients(HERE / "clients.toml")
    selected, not_listed = select(clients, arguments), unlisted(HERE, clients)
    failed = install(selected)
    for name, error in failed.items():
        print(f"{name} can't be installed: {error}", flush=True)
    if arguments.url:
        url = arguments.url.rstrip("/")
        rows = _run_all(selected, failed, url, os.environ.get("NEARFAR_API_KEY", "unused"))
    else:
        key = secrets.token_hex(16)
        with serving(key) as url:
            rows = _run_all(selected, failed, url, key)
    print(f"\n{table(rows)}")
    for path in not_listed:
        print(f"{path} isn't in clients.toml")
    return 0 if rows and all(row.passes for row in rows) and not not_listed else 1


def _run_all(clients: Sequence[Client], failed: Container[str], url: str, key: str) -> list[Row]:
    with flaky(url) as flaky_url:
        variables = {"NEARFAR_URL": url, "NEARFAR_KEY": key, "NEARFAR_FLAKY_URL": flaky_url}
        return [Row(client) if client.environment in failed else run_client(client, variables) for client in clients]


if __name__ == "__main__":
    sys.exit(main())
