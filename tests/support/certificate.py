"""Certificates that openssl makes for tests."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_certificate(folder: Path, *more: str) -> tuple[str, str]:
    """Make a self-signed certificate for 127.0.0.1 and its key."""
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "1", "-subj", "/CN=nearfar"]
    options = [*(more or ["-nodes"]), "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]]
    subprocess.run([*command, *options], check=True, capture_output=True, timeout=60)
    return files
