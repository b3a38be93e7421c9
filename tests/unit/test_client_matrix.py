"""The matrix of clients can fail: what is missing, what didn't run and what isn't listed is told, and never a pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from flaky import flaky, refusal
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
def test_a_row_passes_only_if_it_is_there_and_every_check_ran_and_passed(
    version: str, passed: dict[str, bool], last: str
) -> None:
    row = Row(CLIENT, version, passed)

    assert last == table([row]).split()[-1]
    assert (last == "pass") == row.is_good


def test_a_check_that_did_not_run_is_told() -> None:
    line = table([Row(CLIENT, "1.0", {"embeddings": True})]).splitlines()[1]

    assert "a (python)  1.0        ok          –       –      not run  –      FAIL" == line


def test_a_client_that_does_not_try_again_is_told() -> None:
    client = Client(package="a", environment="node/b", file="a.test.mjs", checks=("rerank", "no_retry"))

    cells = Row(client, "1.0", {"rerank": True, "no_retry": True}).cells()

    assert ["a (node)", "1.0", "–", "ok", "–", "raises", "–", "pass"] == cells


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
def test_a_report_tells_which_checks_passed(cases: tuple[str, ...], expected: dict[str, bool]) -> None:
    assert expected == checks_passed(_report(*cases))


def test_a_file_that_no_client_is_listed_with_is_found(tmp_path: Path) -> None:
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
def test_the_proxy_refuses_in_the_vendors_own_way(path: str, body: bytes, fields: set[str]) -> None:
    assert fields == refusal(path, body).keys()


def test_every_client_is_listed_with_a_file_that_is_there() -> None:
    clients = read_clients(FOLDER / "clients.toml")

    assert [] == [client.path for client in clients if not (FOLDER / client.path).is_file()]
    assert [] == unlisted(FOLDER, clients)


def test_a_client_that_is_missing_fails_the_target(fake_server: ServerProcess, tmp_path: Path) -> None:
    for file in FOLDER.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "python/there").mkdir(parents=True)
    (tmp_path / "python/there/test_b.py").touch()
    (tmp_path / "clients.toml").write_text(
        '[[client]]\npackage = "a"\nenvironment = "python/gone"\nfile = "test_a.py"\nchecks = ["embeddings"]\n'
    )

    ran = subprocess.run(
        [sys.executable, tmp_path / "run.py", "--url", fake_server.url], capture_output=True, text=True, check=False
    )

    assert (1, "") == (ran.returncode, ran.stderr)
    assert "python/gone can't be installed" in ran.stdout
    assert "missing" in ran.stdout
    assert ran.stdout.endswith("FAIL\npython/there/test_b.py isn't in clients.toml\n")


def test_the_proxy_refuses_as_often_as_it_is_told_and_passes_everything_else_on(fake_server: ServerProcess) -> None:
    asked = {"model": "text-embedding-3-small", "input": "a", "encoding_format": "float"}

    with flaky(fake_server.url) as url, httpx.Client(base_url=url, timeout=30) as client:
        armed = client.post("/__arm?n=1")
        first, second = (client.post("/v1/embeddings", json=asked) for _ in range(2))
        count = client.get("/__count")

    assert 204 == armed.status_code
    assert (429, "1") == (first.status_code, first.headers["retry-after"])
    assert refusal("/v1/embeddings") == first.json()
    assert 200 == second.status_code
    assert second.headers["x-request-id"]
    assert 384 == len(second.json()["data"][0]["embedding"])
    assert 2 == count.json()
