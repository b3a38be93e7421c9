"""The listening sockets, and how many files a process may have open."""

from __future__ import annotations

import errno
import logging
import resource
import socket

from nearfar.core.errors import SettingsError

BACKLOG = 2048
_WANTED_FILES = 65_536  # each connection is one; macOS starts a process with 256
_FEW_FILES = 256
_OWN_FILES = 40  # of the process, which aren't connections; it has 20 at rest
_MIN_CONNECTIONS = 8
_FEWEST_FILES = _OWN_FILES + _MIN_CONNECTIONS
_UNSENT_BYTES = 131_072  # that the system takes from a process before it sends them; Linux would take 4 MB
_REMEDIES = {
    errno.EADDRINUSE: "another program listens there: stop it, or use --port with another number, or 0 for a free one",
    errno.EACCES: "ports below 1024 need root: use --port with a higher number",
    errno.EADDRNOTAVAIL: "this machine doesn't have the address: use --host 127.0.0.1, or 0.0.0.0 for all addresses",
}

_log = logging.getLogger(__name__)


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Return the listening sockets: of 127.0.0.1 and ::1 if the host is the former, else a single one.

    Some clients resolve localhost to ::1 alone. Raises SettingsError as ``open_listener`` does.
    """
    first = open_listener(host, port)
    address, port = first.getsockname()[:2]
    if address != "127.0.0.1":
        return [first]
    try:
        return [first, open_listener("::1", port)]
    except SettingsError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE:
            _log.warning("another program listens on [::1]:%d: clients may reach it at localhost:%d", port, port)
        return [first]  # elsewhere, the system has no IPv6


def open_listener(host: str, port: int) -> socket.socket:
    """Return a listening socket, on IPv4 if the host has such an address. Port 0 takes any free one.

    Raises SettingsError if the host is unknown or the port is taken.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last run may linger
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # connections inherit it
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        if isinstance(error, OSError) and error.errno in _REMEDIES:
            reason = f"{reason}; {_REMEDIES[error.errno]}"
        raise SettingsError(f"can't listen on {host}:{port}: {reason}") from error
    listener.setblocking(False)  # noqa: FBT003 — socket's own signature
    return listener


def raise_file_limit() -> None:
    """Raise the limit of open files as far as the system allows. Log a warning if it stays low.

    Raises SettingsError where it is too low to run at all.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft < _FEWEST_FILES:
        raise SettingsError(f"only {soft} files may be open at once; the server needs {_FEWEST_FILES}: see ulimit -Hn")
    if soft < _FEW_FILES:
        _log.warning("only %d files may be open at once, and each connection needs one; see ulimit -Hn", soft)


def connection_limit(listeners: int) -> int:
    """Return how many connections a listener may have: without a free file, granian would try to accept in a loop."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        BACKLOG
        if soft == resource.RLIM_INFINITY
        else max(_MIN_CONNECTIONS, min(BACKLOG, (soft - _OWN_FILES) // listeners))
    )
