"""The client matrix can fail: missing clients, checks that didn't run and unlisted test files never pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from flaky import flaky, rejection_body
from rows import Client, Row, checks_passed, read_clients, table, unlisted
from server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[1] / "client_matrix"
CLIENT = Client(package="a", environment="python/b", file="test_a.py", checks=("embeddings", "retry"))


@pytest.fixture(scope="module")
def fake_server() -> Iterator[ServerProcess]:
    with ServerProcess("--engine", "fake") as server:
        yield server


def _report(*cases: str) -> str:
    return f"<testsuites><testsuite name='pytest'>{''.join(cases)}</testsuite></testsuites>"


def _case(name: str, outcome: str = "") -> str:
    return f"<testcase name='{name}'>{outcome}</testcase>"


@pytest.mark.parametrize(
    ("version", "passed", "last"),
    [
        ("1.0", {"embeddings": True, "retry": True}, "pass"),
        ("1.0", {"embeddings": True, "retry": True, "other": False}, "FAIL"),
        ("1.0", {"embeddings": True, "retry": False}, "FAIL"),
        ("1.0", {"embeddings": True}, "FAIL"),
        ("1.0", {}, "FAIL"),
        ("", {"embeddings": True, "retry": True}, "FAIL"),
    ],
)
def test_a_row_passes_only_if_the_client_is_installed_and_every_check_passed(
    version: str, passed: dict[str, bool], last: str
) -> None:
    row = Row(CLIENT, version, passed)

    assert last == table([row]).split()[-1]
    assert (last == "pass") == row.passes


def test_a_check_that_did_not_run_fails_the_row() -> None:
    line = table([Row(CLIENT, "1.0", {"embeddings": True})]).splitlines()[1]

    assert "a (python)  1.0        ok          –       –      not run  –      FAIL" == line


def test_a_client_without_retries_is_shown_in_the_retry_column() -> None:
    client = Client(package="a", environment="node/b", file="a.test.mjs", checks=("rerank", "no_retry"))

    columns = Row(client, "1.0", {"rerank": True, "no_retry": True}).columns()

    assert ["a (node)", "1.0", "–", "ok", "–", "raises", "–", "pass"] == columns


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ((_case("test_embeddings_are[x]"), _case("test_retry_after")), {"embeddings": True, "retry": True}),
        ((_case("test_error_a"), _case("test_error_b", "<failure/>")), {"error": False}),
        ((_case("test_rerank_a", "<skipped/>"),), {"rerank": False}),
        ((_case("test_collection", "<error/>"),), {"other": False}),
        (("<testsuite name='no_retry: 429'>", _case("surfaces"), "</testsuite>"), {"no_retry": True}),
        ((_case("rerank: ranks"), _case("models are listed")), {"rerank": True, "other": True}),
        ((), {}),
    ],
)
def test_a_report_lists_the_checks_that_passed(cases: tuple[str, ...], expected: dict[str, bool]) -> None:
    assert expected == checks_passed(_report(*cases))


def test_an_unlisted_test_file_is_found(tmp_path: Path) -> None:
    for name in ("python/b/test_a.py", "python/b/test_c.py", "node/d/e.test.mjs"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert ["node/d/e.test.mjs", "python/b/test_c.py"] == unlisted(tmp_path, [CLIENT])


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("/v1/embeddings", b"{}", {"error", "message", "detail"}),
        ("/v1/embeddings", b'{"truncation": null}', {"detail"}),
        ("/v2/rerank", b"{}", {"id", "message"}),
        ("/rerank", b"{}", {"error", "error_type"}),
        ("/api/embed", b"{}", {"error"}),
    ],
)
def test_the_proxy_rejects_in_the_vendors_format(path: str, body: bytes, fields: set[str]) -> None:
    assert fields == rejection_body(path, body).keys()


def test_every_listed_client_has_its_test_file() -> None:
    clients = read_clients(FOLDER / "clients.toml")

    assert [] == [client.path for client in clients if not (FOLDER / client.path).is_file()]
    assert [] == unlisted(FOLDER, clients)


def test_a_client_that_cannot_be_installed_fails_the_run(fake_server: ServerProcess, tmp_path: Path) -> None:
    for file in FOLDER.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "python/unlisted").mkdir(parents=True)
    (tmp_path / "python/unlisted/test_b.py").touch()
    (tmp_path / "clients.toml").write_text(
        '[[client]]\npackage = "a"\nenvironment = "python/gone"\nfile = "test_a.py"\nchecks = ["embeddings"]\n'
    )

    ran = subprocess.run(
        [sys.executable, tmp_path / "run.py", "--url", fake_server.url], capture_output=True, text=True, check=False
    )

    assert (1, "") == (ran.returncode, ran.stderr)
    assert "python/gone can't be installed" in ran.stdout
    assert "missing" in ran.stdout
    assert ran.stdout.endswith("FAIL\npython/unlisted/test_b.py isn't in clients.toml\n")


def test_the_proxy_rejects_as_many_requests_as_armed_and_forwards_the_rest(fake_server: ServerProcess) -> None:
    body = {"model": "text-embedding-3-small", "input": "a", "encoding_format": "float"}

    with flaky(fake_server.url) as url, httpx.Client(base_url=url, timeout=30) as client:
        armed = client.post("/__arm?n=1")
        first, second = (client.post("/v1/embeddings", json=body) for _ in range(2))
        count = client.get("/__count")

    assert 204 == armed.status_code
    assert (429, "1") == (first.status_code, first.headers["retry-after"])
    assert rejection_body("/v1/embeddings") == first.json()
    assert 200 == second.status_code
    assert second.headers["x-request-id"]
    assert 384 == len(second.json()["data"][0]["embedding"])
    assert 2 == count.json()
