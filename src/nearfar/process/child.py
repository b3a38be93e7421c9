"""The worker processes, as the supervisor sees them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from typing import Literal

from nearfar.core.errors import SettingsError
from nearfar.process.channel import HEARTBEATS, SERVES

# Why a worker starts. A ``restart`` follows a death, and serves whichever models can be opened, with what the last
# worker served with. A ``reload`` starts while another worker serves, and takes over once all its models are open.
Start = Literal["initial", "restart", "reload"]

_RECEIVED_BYTES = 65_536
_MAX_WAIT_S = 3600.0  # a timeout may be infinite, and select's can't be
# How many times heartbeat_timeout_s a worker may be silent before it serves: from a cold disk, an import alone may keep
# the interpreter for minutes. A guess.
_STARTUP_FACTOR = 10

_log = logging.getLogger(__name__)


class Child:
    """A worker process and the supervisor's end of its socket, which closes when the process ends.

    ``message`` is sent to it.
    """

    def __init__(
        self,
        command: Sequence[str],
        start: Start,
        arguments: Sequence[str],
        listeners: Sequence[socket.socket],
        message: bytes,
    ) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)  # noqa: FBT003 — socket's own signature
        with theirs:
            files = [listener.fileno() for listener in (*listeners, theirs)]
            line = [*command, ",".join(map(str, files[:-1])), str(files[-1]), start, *arguments]
            try:
                # In a separate process group, so that Ctrl-C reaches it once, through the supervisor.
                self._process = subprocess.Popen(line, pass_fds=files, process_group=0)  # noqa: S603 — this very program
            except OSError as error:
                self.socket.close()
                why = f"no worker process can be started: {error.strerror}; see ulimit -u and -n"
                raise SettingsError(why) from error
        self.started = time.monotonic()
        self._received = b""
        self.unsent = message
        self.served = b""  # the last message that reports it
        self.serves = False
        self.missed_heartbeats = 0
        self.exit_code: int | None = None  # negative: the signal that killed it

    @property
    def age_s(self) -> float:
        """Return the seconds since its start."""
        return time.monotonic() - self.started

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, and the processes that it has started."""
        self.missed_heartbeats = 0
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def send(self) -> None:
        """Send as much of the message as the socket takes."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except OSError:  # it has ended
            self.unsent = b""

    def receive(self) -> None:
        """Read messages, or the exit code if the socket has been closed."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            received = self.socket.recv(_RECEIVED_BYTES)
        if not received:
            self.socket.close()
            self.exit_code = self._process.wait()
        self.missed_heartbeats = 0
        *lines, self._received = (self._received + received).split(b"\n")
        for line in lines:
            if line == SERVES:
                self.serves = True
            elif line:
                self.served = line + b"\n"

    def describe_exit(self) -> str:
        """Return how it ended, in words."""
        code = self.exit_code or 0
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


class Children:
    """All worker processes that run: also those that have been replaced and finish their requests."""

    def __init__(self, command: Sequence[str], arguments: Sequence[str], listeners: Sequence[socket.socket]) -> None:
        self._command = command
        self._arguments = arguments
        self._listeners = listeners
        self._running: list[Child] = []
        self._check_at = -math.inf

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, start: Start, message: bytes = b"") -> Child:
        """Start one. Raises SettingsError if the system has no room for another process."""
        child = Child(self._command, start, self._arguments, self._listeners, message)
        self._running.append(child)
        return child

    def send_signal(self, number: int) -> None:
        """Send a signal to all."""
        for child in self._running:
            child.send_signal(number)

    def kill(self) -> None:
        """Kill all."""
        for child in self._running:
            child.kill()

    def wait(self, wakeup: socket.socket, until: float, heartbeat_timeout_s: float) -> None:
        """Exchange messages, until there is one, ``wakeup`` is readable, or the time has come.

        Kills those that have sent no heartbeat for ``heartbeat_timeout_s``: their event loop is stuck.
        """
        sending = [child.socket for child in self._running if child.unsent]
        reading = [wakeup, *(child.socket for child in self._running)]
        timeout_s = max(0.0, min(until - time.monotonic(), self._check_at - time.monotonic(), _MAX_WAIT_S))
        readable, writable, _ = select.select(reading, sending, [], timeout_s)
        if wakeup in readable:
            wakeup.recv(1)
        for child in [*self._running]:
            if child.socket in writable:
                child.send()
            if child.socket in readable:
                child.receive()
            if child.exit_code is not None:
                self._running.remove(child)
        self._kill_stuck(heartbeat_timeout_s)

    def _kill_stuck(self, timeout_s: float) -> None:
        """Count missed heartbeats, at most one in each interval.

        So none is missed while this process doesn't run either: suspended, frozen, or short of CPU time.
        """
        now = time.monotonic()
        if now < self._check_at:
            return
        self._check_at = now + timeout_s / HEARTBEATS
        for child in self._running:
            child.missed_heartbeats += 1
            factor = 1 if child.serves else _STARTUP_FACTOR
            if child.missed_heartbeats > HEARTBEATS * factor:
                silent = f"sent no heartbeat for {timeout_s * factor:g} s (heartbeat_timeout_s)"
                _log.error("the worker %s: its event loop is stuck; killing it", silent)
                child.kill()
