"""State reports to systemd, by the protocol of sd_notify(3): a datagram of NAME=VALUE lines for each change."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Literal

State = Literal["starting", "ready", "reloading", "stopping"]
_LINES = {"starting": "", "ready": "READY=1\n", "reloading": "RELOADING=1\n", "stopping": "STOPPING=1\n"}


class Notifier:
    """Sends states to the socket ``address``, the value of NOTIFY_SOCKET. Sends nothing if that is None."""

    def __init__(self, address: str | None) -> None:
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address  # Linux's abstract names
        self._last: tuple[State, str] | None = None

    def report(self, state: State, status: str) -> None:
        """Send the state and a line for ``systemctl status`` if either has changed."""
        if not self._address or self._last == (state, status):
            return
        self._last = state, status
        clock = f"MONOTONIC_USEC={time.monotonic_ns() // 1000}\n" if state == "reloading" else ""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(f"{_LINES[state]}{clock}STATUS={status}\n".encode(), self._address)
