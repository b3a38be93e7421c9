"""Serving https, with a certificate that openssl makes for the test."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import httpx2
import pytest
from certificate import make_certificate
from openai import OpenAI
from server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not shutil.which("openssl"), reason="openssl, which makes certificates, isn't installed"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(files: tuple[str, str]) -> Iterator[ServerProcess]:
    with ServerProcess("--engine", "fake", "--tls-cert-file", files[0], "--tls-key-file", files[1]) as server:
        yield server


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def test_a_client_that_verifies_the_certificate_is_answered(
    server: ServerProcess, files: tuple[str, str], version: ssl.TLSVersion
) -> None:
    trust = ssl.create_default_context(cafile=files[0])
    trust.minimum_version = trust.maximum_version = version
    with httpx2.Client(verify=trust, timeout=60) as http:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="unused", http_client=http)

        reply = client.embeddings.create(model="text-embedding-3-small", input="hello")

    assert 384 == len(reply.data[0].embedding)
    assert any(entry["message"].startswith(f"serving on {server.url} ") for entry in server.log)


def test_a_client_that_does_not_trust_the_certificate_disconnects(server: ServerProcess) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{server.url}/health", timeout=60)


def test_plain_http_is_not_answered(server: ServerProcess) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{server.port}/health", timeout=60)


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        ("cert.pem", "nowhere.pem", "tls_key_file: {}/nowhere.pem can't be read (No such file or directory)"),
        ("nowhere.pem", "key.pem", "tls_cert_file: {}/nowhere.pem can't be read (No such file or directory)"),
        ("key.pem", "cert.pem", "are not a certificate and its private key, in PEM and without a password"),
        ("cert.pem", "locked/key.pem", "are not a certificate and its private key, in PEM and without a password"),
        ("cert.pem", "other/key.pem", "are not a certificate and its private key, in PEM and without a password"),
        ("cert.pem", None, "tls_cert_file and tls_key_file: set both, or neither for plain HTTP"),
    ],
)
def test_unusable_certificate_files_are_one_log_line_and_exit_code_1(
    cert: str, key: str | None, message: str, tmp_path: Path
) -> None:
    make_certificate(tmp_path)
    for name, more in (("locked", ["-passout", "pass:secret"]), ("other", [])):
        (tmp_path / name).mkdir()
        make_certificate(tmp_path / name, *more)
    options = ["--tls-cert-file", str(tmp_path / cert), *(["--tls-key-file", str(tmp_path / key)] if key else [])]
    command = [sys.executable, "-m", "nearfar", "serve", "--port", "0", "--log-format", "human", *options]

    ended = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60, check=False)

    assert 1 == ended.returncode
    assert message.format(tmp_path) in ended.stderr
    assert 1 == len(ended.stderr.splitlines())
