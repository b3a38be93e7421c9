"""Check TLS certificates before granian reads them: it would answer a bad file with a traceback."""

from __future__ import annotations

import ssl
from pathlib import Path

from nearfar.core.errors import SettingsError
from nearfar.core.settings import Settings


def find_certificate(settings: Settings) -> tuple[Path, Path] | None:
    """Return the files of the certificate and of its private key, or None for plain HTTP.

    Raises SettingsError if only one is set, one can't be read, or they don't belong together.
    """
    cert, key = settings.tls_cert_file, settings.tls_key_file
    if not cert and not key:
        return None
    if not cert or not key:
        raise SettingsError("tls_cert_file and tls_key_file: set both, or neither for plain HTTP")
    for name, file in (("tls_cert_file", cert), ("tls_key_file", key)):
        try:
            Path(file).read_bytes()
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
    return Path(cert), Path(key)
