"""The socket between supervisor and worker. A message is a line: a heartbeat, ``serves``, or a ``WorkerConfig``."""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import socket
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from nearfar.core.errors import SettingsError
from nearfar.core.settings import Settings
from nearfar.http.gate.keys import KeyEntry

if TYPE_CHECKING:
    from nearfar.http.gate.auth import KeyRing

HEARTBEATS = 10  # in each heartbeat_timeout_s
SERVES = b"serves"
_MAX_INTERVAL_S = 60.0  # the timeout may be infinite


class WorkerConfig(Struct, frozen=True, kw_only=True):
    """What a worker serves with. After its death the next one serves the same, whatever has become of the files."""

    settings: Settings
    # The entries of api_keys_file.
    keys: tuple[KeyEntry, ...] = ()
    # PEM of the certificate and of its private key; None for plain HTTP, and before a worker has read them.
    certificate: tuple[bytes, bytes] | None = None

    def to_line(self) -> bytes:
        """Return the message. Not as JSON, which has no infinite timeouts."""
        return binascii.b2a_base64(msgspec.msgpack.encode(self))

    @classmethod
    def from_line(cls, line: bytes) -> WorkerConfig:
        """Parse the message."""
        return msgspec.msgpack.decode(binascii.a2b_base64(line), type=cls)


def receive_config(supervisor: int) -> WorkerConfig:
    """Wait for what the supervisor sends to a worker at a restart; its socket has this file descriptor.

    Raises SettingsError if the supervisor is gone.
    """
    with socket.fromfd(supervisor, -1, -1) as connection, connection.makefile("rb") as lines:
        line = lines.readline()
    if not line:
        raise SettingsError("the supervisor process is gone")
    return WorkerConfig.from_line(line)


class Heartbeat:
    """Reports to the supervisor that the event loop runs, and what it serves with, until the task is cancelled."""

    def __init__(self, supervisor: int, served: WorkerConfig, keys: KeyRing) -> None:
        self._supervisor = supervisor
        self._served = served
        self._keys = keys
        keys.on_change = self._report_change
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()

    def report_ready(self) -> None:
        """Report that the models are open."""
        self._lines.put_nowait(SERVES)

    def _report_change(self) -> None:
        self._lines.put_nowait(b"")

    async def run(self) -> None:
        """Send heartbeats, other reports, and each change of what is served."""
        loop = asyncio.get_running_loop()
        reported: WorkerConfig | None = None
        with contextlib.suppress(OSError), socket.fromfd(self._supervisor, -1, -1) as connection:  # it may be gone
            connection.setblocking(False)  # noqa: FBT003 — socket's own signature
            while True:
                served = msgspec.structs.replace(self._served, keys=self._keys.entries)
                if served != reported:
                    reported = served
                    await loop.sock_sendall(connection, served.to_line())
                line = b""
                with contextlib.suppress(TimeoutError):
                    interval_s = min(served.settings.heartbeat_timeout_s / HEARTBEATS, _MAX_INTERVAL_S)
                    line = await asyncio.wait_for(self._lines.get(), interval_s)
                await loop.sock_sendall(connection, line + b"\n")
