"""Scopes over a real server: every route for every key, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import hashlib
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from openapi_document import DOCUMENT, OPERATIONS, address, examples
from server_process import ServerProcess

from nearfar.core.caller import SCOPES_FOR
from nearfar.dialects.kit.routing import installed_dialects
from nearfar.http.openapi.operations import list_operations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS = ("", "embed", "rerank", "admin")
VERSIONS = ("--http1.1", "--http2-prior-knowledge")


@pytest.fixture
def server_with_keys(tmp_path: Path) -> Iterator[ServerProcess]:
    file = tmp_path / "keys.toml"
    file.write_text(
        "\n".join(
            f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\nscopes = ["{name}"]'
            for name in KEYS[1:]
        )
    )
    with ServerProcess("--engine", "fake", NEARFAR_API_KEYS_FILE=str(file)) as server:
        yield server


def send(url: str, version: str, key: str) -> list[int]:
    """Send the first example of every operation, each over a new connection. Return the statuses."""
    commands = []
    for path, method in OPERATIONS:
        operation = DOCUMENT["paths"][path][method]
        content = operation.get("requestBody", {"content": {}})["content"]
        body = next((json.dumps(value) for _, value in examples(content)), None)
        command = ["curl", "--silent", version, "--output", "/dev/null", "--write-out", "%{http_code}"]
        command += ["--header", f"authorization: Bearer {key}"] if key else []
        command += ["--json", body] if body else []
        command += ["--head"] if method == "head" else ["--request", method.upper()]
        commands.append([*command, f"{url}{address(path, operation)}"])
    with ThreadPoolExecutor(4) as threads:
        return [*threads.map(lambda command: int(subprocess.check_output(command)), commands)]


def test_every_route_admits_the_same_keys_over_both_versions_of_http(
    server_with_keys: ServerProcess,
) -> None:
    """Where the scope depends on the body, only the versions are compared: a unit test checks such routes."""
    kinds = [
        [
            kind
            for one in list_operations(installed_dialects())
            if (one.path, one.method) == at
            for kind in one.about.answers
        ]
        for at in OPERATIONS
    ]
    wrong = []
    for key in KEYS:
        first, second = (send(server_with_keys.url, version, key) for version in VERSIONS)
        for (path, method), given, *statuses in zip(OPERATIONS, kinds, first, second, strict=True):
            is_public = DOCUMENT["paths"][path][method]["security"] == []
            allowed = {is_public or key in SCOPES_FOR[kind] for kind in given}
            refusal = 403 if key else 401
            is_right = len({*statuses}) == 1 and (len(allowed) > 1 or (statuses[0] != refusal) == (True in allowed))
            wrong += [] if is_right else [(method, path, key, statuses)]

    assert [] == wrong
