"""The sockets of connected clients. Granian has no function that closes one; they are found among the open files."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from nearfar.http.connections import Connections, Peer
from nearfar.telemetry.events import CloseReason

_FILES = Path("/dev/fd")  # of this process, on Linux and macOS
_RESET = struct.pack("ii", 1, 0)  # of SO_LINGER: drop what hasn't been sent
_INTERVAL_S = 1.0
_SHORT_INTERVAL_S = 0.25  # while too many bytes wait
_REPEAT_S = 60.0  # of a warning
_LOGGED: dict[CloseReason, str] = {
    "unread": "their clients don't read the answers: see write_timeout_s and max_unread_bytes",
    "limit": "they were idle, and few more may be open: see ulimit -n",
}

_log = logging.getLogger(__name__)


async def watch_connections(connections: Connections, port: int) -> None:
    """Close the connections to a port that are overdue, every second until it is cancelled."""
    due = quiet_until = 0.0
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    while True:
        overdue: dict[Peer, CloseReason] = {}
        await asyncio.sleep(_SHORT_INTERVAL_S)
        if not connections.unread.is_full and time.monotonic() < due:
            continue
        due = time.monotonic() + _INTERVAL_S
        try:
            peers = await asyncio.to_thread(connected_peers, port)
            overdue = connections.find_overdue(peers)
            if overdue:
                await asyncio.to_thread(close_connections, port, overdue)
            if trim and "unread" in overdue.values():  # what large answers leave would stay with the process
                await asyncio.to_thread(trim, 0)
            full = f"{len(peers)} connections are open, others wait" if len(peers) >= connections.limit else ""
        except OSError as error:
            full = f"no more files can be opened: {error.strerror}"
        for reason, count in Counter(overdue.values()).items():
            if reason in _LOGGED:
                _log.warning("closed %d connections: %s", count, _LOGGED[reason])
        if full and time.monotonic() > quiet_until:
            quiet_until = time.monotonic() + _REPEAT_S
            _log.warning("%s; see ulimit -n", full)


def connected_peers(port: int) -> set[Peer]:
    """Return the clients that are connected to a port of this process. Raises OSError if no file can be opened."""
    return {peer for peer, _ in _connections(port)}


def close_connections(port: int, reasons: Mapping[Peer, CloseReason]) -> None:
    """Shut down the connections of some clients: granian then frees what it keeps for them.

    The system drops what it hasn't sent to a client that doesn't read.
    """
    for peer, connection in _connections(port):
        if reason := reasons.get(peer):
            if reason == "unread":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.shutdown(socket.SHUT_RDWR)


def _connections(port: int) -> Iterator[tuple[Peer, socket.socket]]:
    """Yield each connection to a port: a duplicate, so that it is still the same one if granian closes its own."""
    for file in _FILES.iterdir():
        try:
            if not file.is_socket():
                continue
            with socket.fromfd(int(file.name), -1, -1) as connection:
                peer = connection.getpeername()
                if connection.family in {socket.AF_INET, socket.AF_INET6} and connection.getsockname()[1] == port:
                    yield (peer[0].partition("%")[0], str(peer[1])), connection
        except OSError:  # closed meanwhile, or not connected
            continue
