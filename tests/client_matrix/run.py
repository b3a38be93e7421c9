"""Do clients notice anything but a new address? Each runs unchanged, in an environment of its own, against a server.

``make test-clients``, or ``python tests/client_matrix/run.py --only openai cohere``. One ``nearfar serve`` with the
built-in model answers them all; clients.toml lists them. The exit code is 1 if one is missing or can't be installed, if
a check failed, or if a check didn't run.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from environments import HERE, MADE, NotInstalledError, environment
from flaky import flaky
from rows import Client, Row, checks_passed, read_clients, table, unlisted

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

START_S = 180  # a first start converts the model for OpenVINO


class NoServerError(Exception):
    """The server didn't start."""


@contextmanager
def serving(key: str) -> Iterator[str]:
    """Run ``nearfar serve`` on a free port; give its address once it is ready."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEARFAR_")}
    settings = {"NEARFAR_API_KEY": key, "NEARFAR_CACHE_DIR": str(MADE / "cache")}
    MADE.mkdir(exist_ok=True)
    with (MADE / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "nearfar", "serve", "--port", str(port)]
        process = subprocess.Popen(command, env={**inherited, **settings}, stderr=log)
        try:
            _wait(process, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    raise NoServerError(f"the server didn't get ready; see {MADE / 'server.log'}")


def prepare(clients: Sequence[Client]) -> dict[str, str]:
    """Make the environments, two at a time as pip and npm keep a core busy; give why those that failed did."""
    names = list(dict.fromkeys(client.environment for client in clients))
    with ThreadPoolExecutor(2) as workers:
        return {name: why for name, why in zip(names, workers.map(_make, names), strict=True) if why}


def _make(name: str) -> str:
    try:
        environment(name).make()
    except NotInstalledError as error:
        return str(error)
    return ""


def run_client(client: Client, variables: dict[str, str]) -> Row:
    """Run one client's checks; what fails is printed."""
    place = environment(client.environment)
    version = place.version(client.package)
    report, printed = place.report(client, variables)
    row = Row(client, version, checks_passed(report) if report else {})
    print(f"{client.path}: {'pass' if row.is_good else 'FAIL'}", flush=True)
    if not row.is_good:
        print(printed, flush=True)
    return row


def _chosen(clients: Sequence[Client], arguments: argparse.Namespace) -> list[Client]:
    """Give the clients that were asked for; a name that means none of them is refused."""
    for name in arguments.only:
        if not any(client.is_named(name) for client in clients):
            raise SystemExit(f"no client is named {name}")
    return [
        client
        for client in clients
        if arguments.language in {None, client.language}
        and (not arguments.only or any(client.is_named(name) for name in arguments.only))
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="packages, environments or files")
    parser.add_argument("--language", choices=["python", "node"])
    parser.add_argument("--url", help="a server that is running already; its key is read from NEARFAR_API_KEY")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; print the table; give the exit code."""
    arguments = _arguments()
    clients = read_clients(HERE / "clients.toml")
    chosen, forgotten = _chosen(clients, arguments), unlisted(HERE, clients)
    failed = prepare(chosen)
    for name, why in failed.items():
        print(f"{name} can't be installed: {why}", flush=True)
    if arguments.url:
        url = arguments.url.rstrip("/")
        rows = _run_all(chosen, failed, url, os.environ.get("NEARFAR_API_KEY", "unused"))
    else:
        key = secrets.token_hex(16)
        with serving(key) as url:
            rows = _run_all(chosen, failed, url, key)
    print(f"\n{table(rows)}")
    for path in forgotten:
        print(f"{path} isn't in clients.toml")
    return 0 if rows and all(row.is_good for row in rows) and not forgotten else 1


def _run_all(clients: Sequence[Client], failed: Container[str], url: str, key: str) -> list[Row]:
    with flaky(url) as flaky_url:
        variables = {"NEARFAR_URL": url, "NEARFAR_KEY": key, "NEARFAR_FLAKY_URL": flaky_url}
        return [Row(client) if client.environment in failed else run_client(client, variables) for client in clients]


if __name__ == "__main__":
    sys.exit(main())
