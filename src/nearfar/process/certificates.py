"""The files of a TLS certificate, looked at before granian gets them: its own complaint is a traceback."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from nearfar.core.errors import SettingsError

if TYPE_CHECKING:
    from nearfar.core.settings import Settings


def find_certificate(settings: Settings) -> tuple[Path, Path] | None:
    """Give the files of the certificate and its key, or None for http.

    Raises SettingsError where they can't be used.
    """
    given, own = settings.tls_cert_file, settings.tls_key_file
    if not given and not own:
        return None
    if not given or not own:
        raise SettingsError(
            "tls_cert_file and tls_key_file: one without the other is of no use; give both, or neither for http"
        )
    for option, file in (("tls_cert_file", given), ("tls_key_file", own)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise SettingsError(f"{option}: {file} can't be read ({error.strerror})") from error
    try:
        # Openssl would ask the terminal for a password; this is what a key under one is refused by.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(given, own, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        both = f"tls_cert_file and tls_key_file: {given} and {own}"
        raise SettingsError(
            f"{both} aren't a certificate and its key, in PEM and without a password: {error}"
        ) from error
    return Path(given), Path(own)
