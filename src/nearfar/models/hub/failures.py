"""Explains why a download failed: one sentence with the cause and the way out. Never a value that may be secret."""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from nearfar.core.environment import network_variables

_E = TypeVar("_E", bound=BaseException)

_UNAUTHORIZED, _TOO_MANY, _SERVER_ERRORS = 401, 429, 500
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}


def explain_failure(error: Exception, endpoint: str, cache: Path) -> str:
    """Return the sentence for an exception of huggingface_hub, of its HTTP library or of the operating system."""
    causes = list(_chain(error))
    return (
        _of_variables(causes)
        or _of_certificates(causes)
        or _of_answer(causes, endpoint)
        or _of_network(causes, endpoint, cache)
    )


def _of_variables(causes: list[BaseException]) -> str | None:
    """Explain which variable of a proxy or a token is wrong."""
    from httpx2 import LocalProtocolError
    from huggingface_hub.errors import OfflineModeIsEnabled

    text = " ".join(map(str, causes))
    if _first(causes, OfflineModeIsEnabled):
        return "not on this disk, and HF_HUB_OFFLINE forbids downloading it"
    if _first(causes, ImportError) and "socks" in text.lower():
        return f'{_proxies("socks")} is a SOCKS proxy, which needs a package: pip install "httpx2[socks]"'
    if "proxy URL" in text or (_first(causes, ValueError) and "Invalid port" in text):
        return f"{_proxies()} isn't a proxy's URL; it begins with http://, https://, socks5:// or socks5h://"
    if "missing an 'http://'" in text:
        return "HF_ENDPOINT isn't a URL; it begins with http:// or https://"
    if _first(causes, UnicodeEncodeError, LocalProtocolError):
        return "the hub's token has characters that a header can't carry; set HF_TOKEN again"
    return None


def _of_certificates(causes: list[BaseException]) -> str | None:
    files = {name: path for name, path in network_variables().items() if name.startswith("SSL_CERT_")}
    gone = [f"{name}={path}" for name, path in files.items() if not Path(path).exists()]
    if gone and _first(causes, FileNotFoundError):
        return f"there is no file of certificates at {gone[0]}; correct or unset the variable"
    if _first(causes, ssl.SSLCertVerificationError) or any(
        "CERTIFICATE_VERIFY_FAILED" in str(cause) for cause in causes
    ):
        return "the hub's certificate isn't trusted; set SSL_CERT_FILE to a PEM file of your network's authorities"
    if files and _first(causes, ssl.SSLError, IsADirectoryError):
        return f"no certificates can be read from {' and '.join(files)}; correct or unset the variable"
    return None


def _of_answer(causes: list[BaseException], endpoint: str) -> str | None:
    """Explain what the hub answered, or what lacks in its answers."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError

    if answer := _first(causes, HfHubHTTPError):
        status = answer.response.status_code
        if status == _UNAUTHORIZED:
            if get_token():
                return "the hub refused the token (401); renew HF_TOKEN, or unset it for a public model"
            return "the hub asks for a token (401); set HF_TOKEN"
        if status == _TOO_MANY:
            return f"{endpoint} allows no more requests for now (429); try again later, or set HF_TOKEN"
        fault = "is in trouble" if status >= _SERVER_ERRORS else "refused"
        return f"{endpoint} {fault}: it answered {status}; try again later, or see nearfar models"
    if lacking := _first(causes, FileMetadataError):
        header = re.search(r"X-[\w-]+|ETag|size", str(lacking))
        return f"{endpoint} doesn't answer as a model hub: it sends no {header[0] if header else 'metadata'}"
    return None


def _of_network(causes: list[BaseException], endpoint: str, cache: Path) -> str:
    """Explain why no answer came, or why it couldn't be stored."""
    from httpx2 import HTTPError

    if failed := _first(causes, HTTPError):
        asked = _host(str(failed.request.url)) if getattr(failed, "_request", None) else ""
        moved = f", which redirects to {asked}," if asked and asked != _host(endpoint) else ""
        through = f" through {_proxies()}" if _proxies() else ""
        reason = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), "")
        why = reason or str(failed).rstrip(".") or type(failed).__name__
        return f"the hub at {endpoint}{moved} can't be reached{through} ({why}); try again, or see nearfar models"
    if _first(causes, RuntimeError):  # of hf_xet
        return "the hub's Xet storage can't be reached; set HF_HUB_DISABLE_XET=1 to download without it"
    if failure := _first(causes, OSError):
        reason = failure.strerror or type(failure).__name__
        file = str(failure.filename or cache)  # outside of the cache it may be that of a token
        if failure.errno in _NOT_WRITABLE and file.startswith(str(cache)):
            return f"download failed: {reason} in {cache}; set HF_HOME to a folder that can be written"
        return f"download failed: {reason}" + (f": {file}" if failure.filename else "")
    return f"{endpoint} doesn't answer as a model hub; check hub_endpoint, HF_ENDPOINT and proxies"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first(causes: list[BaseException], *kinds: type[_E]) -> _E | None:
    return next((cause for cause in causes if isinstance(cause, kinds)), None)


def _proxies(scheme: str = "") -> str:
    """Return the names of the variables that set a proxy."""
    return " and ".join(
        name
        for name, value in network_variables().items()
        if re.fullmatch("(?i)(https?|all)_proxy", name) and value.startswith(scheme)
    )


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
