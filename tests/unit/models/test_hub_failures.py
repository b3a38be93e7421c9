"""Every failure of a download is one sentence that names the cause and the way out, without a password in it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from nearfar.core.errors import CheckpointError
from nearfar.models.hub.download import Hub, _write_pin, find_or_download
from nearfar.models.hub.failures import explain_failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "c" * 40
REPO = "owner/model"
MODEL = f'{{"id": "{REPO}", "sha": "{COMMIT}", "siblings": [{{"rfilename": "config.json"}}]}}'.encode()
TREE = b'[{"type": "file", "path": "config.json", "size": 2, "oid": "x"}]'
PROGRAM = f"""
import sys
from pathlib import Path
from nearfar.models.hub.checkpoint import find_checkpoint
from nearfar.models.hub.download import Hub
try:
    find_checkpoint({REPO!r}, Hub(endpoint=sys.argv[1], cache_dir=Path(sys.argv[2]) if sys.argv[2] else None))
except Exception as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""


class _Handler(BaseHTTPRequestHandler):
    """Answers every request with one status and headers; and a file's with ``file_headers``."""

    status: ClassVar[int] = 200
    headers_sent: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        body = TREE if "/tree/" in self.path else MODEL if "/api/" in self.path else b"{}"
        self.send_response(self.status)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 — http.server's own name for it

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — http.server's own name for it
        """Keep the test's output clean."""


@contextmanager
def answering(status: int = 200, **headers: str) -> Iterator[str]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    handler = type("Handler", (_Handler,), {"status": status, "headers_sent": sent})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


UNREACHABLE = "can't be reached (Name or service not known); try again, or see nearfar models"
# expected, status, headers
ANSWERS: list[tuple[str, int, dict[str, str]]] = [
    ("the hub asks for a token (401); set HF_TOKEN", 401, {"x_error_message": "Invalid username or password."}),
    ("{} refused: it answered 403; try again later, or see nearfar models", 403, {}),
    ("{} allows no more requests for now (429); try again later, or set HF_TOKEN", 429, {}),
    ("{} is in trouble: it answered 503; try again later, or see nearfar models", 503, {}),
    ("{} doesn't answer as a model hub: it sends no X-Repo-Commit", 200, {}),
    ("{} doesn't answer as a model hub: it sends no ETag", 200, {"x_repo_commit": COMMIT}),
    (
        f"the hub at {{}}, which redirects to other.invalid, {UNREACHABLE}",
        308,
        {"location": "http://other.invalid/x"},
    ),
]
BAD_PROXY = "isn't a proxy's URL; it begins with http://, https://, socks5:// or socks5h://"
# variables, expected; the hub is a name that doesn't exist
VARIABLES: list[tuple[dict[str, str], str]] = [
    ({"ALL_PROXY": "socks5h://u:pw@127.0.0.1:1"}, "ALL_PROXY is a SOCKS proxy, which needs a package: pip install"),
    ({"https_proxy": "socks4://u:pw@127.0.0.1:1"}, f"https_proxy {BAD_PROXY}"),
    ({"HTTPS_PROXY": "http://u:pw@127.0.0.1:port"}, f"HTTPS_PROXY {BAD_PROXY}"),
    ({"HTTP_PROXY": "http://u:pw@127.0.0.1:1"}, "the hub at http://hub.invalid can't be reached through HTTP_PROXY ("),
    ({"SSL_CERT_FILE": "/gone.pem"}, "there is no file of certificates at SSL_CERT_FILE=/gone.pem; correct or unset"),
    ({"SSL_CERT_FILE": "/etc"}, "no certificates can be read from SSL_CERT_FILE; correct or unset"),
    ({"SSL_CERT_FILE": __file__}, "no certificates can be read from SSL_CERT_FILE; correct or unset the variable"),
    ({"HF_TOKEN": "hf_ä"}, "the hub's token has characters that a header can't carry; set HF_TOKEN again"),
    ({"HF_TOKEN_PATH": "/etc"}, "download failed: Is a directory: /etc"),
    ({"HF_HUB_OFFLINE": "1"}, "not on this disk, and HF_HUB_OFFLINE forbids downloading it"),
    ({}, f"the hub at http://hub.invalid {UNREACHABLE}"),
]


@pytest.mark.parametrize(("expected", "status", "headers"), ANSWERS)
def test_what_the_hub_answered_is_named(expected: str, status: int, headers: dict[str, str], tmp_path: Path) -> None:
    with answering(status, **headers) as endpoint, pytest.raises(CheckpointError) as refused:
        find_or_download(REPO, None, Hub(endpoint=endpoint, cache_dir=tmp_path))

    assert f"{REPO}: {expected.format(endpoint)}" == str(refused.value)


def run(variables: dict[str, str], endpoint: str, cache: str) -> subprocess.Popen[str]:
    names = ("HF_", "SSL_CERT", "HTTP", "http", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    command = [sys.executable, "-c", PROGRAM, endpoint, cache]
    return subprocess.Popen(
        command, env=clean | variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def test_the_variable_that_is_wrong_is_named(tmp_path: Path) -> None:
    running = [run(variables, "http://u:pw@hub.invalid", str(tmp_path)) for variables, _ in VARIABLES]

    found = [program.communicate(timeout=60)[0] for program in running]

    wrong = [
        (expected, output)
        for (_, expected), output in zip(VARIABLES, found, strict=True)
        if not output.startswith(f"CheckpointError: {REPO}: {expected}") or "pw" in output
    ]
    assert [] == wrong


def test_an_address_without_a_scheme_is_named(tmp_path: Path) -> None:
    output, _ = run({}, "hub.invalid", str(tmp_path)).communicate(timeout=60)

    assert f"CheckpointError: {REPO}: HF_ENDPOINT isn't a URL; it begins with http:// or https://\n" == output


def test_a_token_that_the_hub_refuses_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    with answering(401, x_error_message="Invalid username or password.") as endpoint:
        output, _ = run({"HF_TOKEN": "hf_dead"}, endpoint, str(tmp_path)).communicate(timeout=60)

    assert f"{REPO}: the hub refused the token (401); renew HF_TOKEN, or unset it for a public model\n" in output


def test_an_error_of_the_xet_storage_names_the_variable_that_avoids_it(tmp_path: Path) -> None:
    """It is a RuntimeError of a compiled library, with no more than that a server didn't answer."""
    wrapped = OSError("download failed")
    wrapped.__cause__ = RuntimeError("Data processing error: CAS service error: connection refused")

    explained = {explain_failure(error, "http://hub", tmp_path) for error in (wrapped, wrapped.__cause__)}

    assert {"the hub's Xet storage can't be reached; set HF_HUB_DISABLE_XET=1 to download without it"} == explained


def test_without_a_home_folder_or_a_writable_one_hf_home_is_the_way_out() -> None:
    with answering(x_repo_commit=COMMIT, etag=f'"{COMMIT}"') as endpoint:
        programs = [run({"HF_HOME": "~no-such-user/x"}, endpoint, ""), run({"HF_HOME": "/proc/sys"}, endpoint, "")]
        homeless, unwritable = (program.communicate(timeout=60)[0] for program in programs)

    assert f"CheckpointError: {REPO}: there is no home folder to download to; set HF_HOME to a folder\n" == homeless
    assert "download failed: No such file or directory in /proc/sys/hub; set HF_HOME" in unwritable


def test_a_cache_that_can_not_be_written_is_served_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The model is whole; only the commit can't be pinned. A read-only file system looks like this file."""
    (tmp_path / "refs").touch()

    _write_pin(REPO, tmp_path / "snapshots" / COMMIT, "nearfar")

    assert f"refs can't be written (File exists); to stay at this commit, serve {REPO}@{COMMIT}" in caplog.text
