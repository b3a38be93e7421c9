"""Read TLS certificates and check them before granian reads them: it would answer a bad file with a traceback."""

from __future__ import annotations

import logging
import os
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path

from nearfar.core.errors import SettingsError
from nearfar.core.settings import Settings

_log = logging.getLogger(__name__)


def read_certificate(settings: Settings) -> tuple[bytes, bytes] | None:
    """Return the certificate and its private key in PEM, or None for plain HTTP.

    Raises SettingsError if only one is set, one can't be read, or they don't belong together.
    """
    cert, key = settings.tls_cert_file, settings.tls_key_file
    if not cert and not key:
        return None
    if not cert or not key:
        raise SettingsError("tls_cert_file and tls_key_file: set both, or neither for plain HTTP")
    read: list[bytes] = []
    for name, file in (("tls_cert_file", cert), ("tls_key_file", key)):
        try:
            read.append(Path(file).read_bytes())
        except OSError as error:
            raise SettingsError(f"{name}: {file} can't be read ({error.strerror})") from error
    try:
        # Without a password OpenSSL would prompt for one on the terminal; an empty one makes it refuse encrypted keys.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(
            f"tls_cert_file and tls_key_file: {cert} and {key} are not a certificate and its private key, "
            f"in PEM and without a password: {error}"
        ) from error
    return read[0], read[1]


def certificate_paths(settings: Settings, certificate: tuple[bytes, bytes]) -> tuple[str, str]:
    """Return paths that a certificate and its key can be read from.

    Where their files are gone or have changed, these are nameless files, which stay open until this process ends.
    """
    with suppress(SettingsError):
        if read_certificate(settings) == certificate:
            return str(settings.tls_cert_file), str(settings.tls_key_file)
    _log.warning("tls_cert_file and tls_key_file have changed; keeping the last worker's certificate until a reload")
    return _nameless(certificate[0]), _nameless(certificate[1])


def _nameless(content: bytes) -> str:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        return f"/dev/fd/{os.dup(file.fileno())}"
