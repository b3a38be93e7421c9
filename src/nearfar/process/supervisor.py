"""The supervisor: owns the listening socket, keeps a worker process serving on it, and passes signals on.

A forward pass that hangs, a crash inside a library and the kernel's out-of-memory killer end the worker alone. The port
stays open, so new connections wait in the backlog for the next worker. Imports no models and no HTTP, to stay small.
"""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Literal

from nearfar.core.environment import injected_variables, pop_notify_socket
from nearfar.core.errors import SettingsError, SetupError
from nearfar.core.settings import Settings
from nearfar.process.listener import open_listener, raise_file_limit
from nearfar.process.notify import Notifier
from nearfar.telemetry.logs import configure_logging

# Why a worker starts. A ``restart`` follows a crash, and serves whichever models can be opened. A ``reload`` starts
# while another worker serves, and takes over once all its models are open.
Start = Literal["initial", "restart", "reload"]

_FINAL_CODES = (0, 1, 2)  # a worker that drained, can't open a model, or can't read the settings isn't restarted
# A worker that dies within _EARLY_S of its start may do so every time: each restart then waits twice as long as the one
# before, and after _MAX_EARLY_DEATHS there is no restart. Guesses.
_EARLY_S = 60.0
_MAX_EARLY_DEATHS = 6
_FIRST_DELAY_S = 1.0

_KEPT = "host, port, variables and the command line stay as they were until a restart"

_log = logging.getLogger(__name__)


def supervise(
    settings: Settings, command: Sequence[str], arguments: Sequence[str], *, first_delay_s: float = _FIRST_DELAY_S
) -> int:
    """Serve until a signal. Return the exit code: 0 after a drain, 1 if the port or a model can't be opened.

    ``command`` starts a worker. It is followed by the file descriptors of the listening socket and of the socket to
    this process, the reason for the start, and ``arguments``.
    """
    configure_logging(settings.log_format)
    if injected := injected_variables():
        _log.info("ignored variables that Kubernetes sets for a Service: %s", ", ".join(sorted(injected)))
    notifier = Notifier(pop_notify_socket())
    try:
        raise_file_limit()
        with open_listener(settings.host, settings.port) as listener:
            code = _Supervisor(command, arguments, listener, notifier, first_delay_s).run()
    except SetupError as error:
        _log.error("can't start: %s", error)
        return 1
    if code < 0:  # a second signal ended the worker at once, and ends this process the same way
        signal.signal(-code, signal.SIG_DFL)
        signal.raise_signal(-code)
    return code


class _Worker:
    """A worker process and a socket to it. The worker writes a byte there once it serves; its end closes the socket."""

    def __init__(self, command: Sequence[str], start: Start, arguments: Sequence[str], listener: socket.socket) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            files = (listener.fileno(), theirs.fileno())
            line = [*command, *map(str, files), start, *arguments]
            try:
                # In a separate process group, so that Ctrl-C reaches it once, through the supervisor.
                self._process = subprocess.Popen(line, pass_fds=files, process_group=0)  # noqa: S603 — this very program
            except OSError as error:
                self.socket.close()
                why = f"no worker process can be started: {error.strerror}; see ulimit -u and -n"
                raise SettingsError(why) from error
        self._started = time.monotonic()
        self.serves = False
        self.exit_code: int | None = None  # negative: the signal that killed it
        self.lifetime_s = 0.0

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def read(self) -> None:
        """Read the socket: note that the worker serves, or its exit code if the socket has been closed."""
        if self.socket.recv(1):
            self.serves = True
        else:
            self.socket.close()
            self.exit_code = self._process.wait()
            self.lifetime_s = time.monotonic() - self._started

    def end(self) -> str:
        """Return how it ended, in words."""
        code = self.exit_code or 0
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


class _Supervisor:
    """Keeps the ``current`` worker serving. A reload starts its ``replacement``, which takes over once it serves."""

    def __init__(
        self,
        command: Sequence[str],
        arguments: Sequence[str],
        listener: socket.socket,
        notifier: Notifier,
        first_delay_s: float,
    ) -> None:
        self._command = command
        self._arguments = arguments
        self._listener = listener
        self._notifier = notifier
        self._first_delay_s = first_delay_s
        self._wakeup, self._waker = socket.socketpair()  # a signal handler writes, so that select returns
        self._waker.setblocking(False)  # noqa: FBT003 — socket's own signature
        self._workers: list[_Worker] = []  # all that run: also those that have been replaced and finish their requests
        self._replacement: _Worker | None = None
        self._stop_signal: int | None = None
        self._reload_requested = False
        self._early_deaths = 0

    def run(self) -> int:
        """Keep a worker serving until a signal. Return its exit code, negative if a signal killed it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup
        if not ignored and not _on_terminal():  # a terminal that closes sends it too, and then it means stop
            signal.signal(signal.SIGHUP, self._on_reload)
        with self._wakeup, self._waker:
            self._current = self._start("initial")
            while (code := self._advance()) is None:
                self._report()
                self._wait()
            self._report()
            while self._workers:
                self._wait()
            return code

    def _advance(self) -> int | None:
        """Restart or reload as needed. Return the exit code once the current worker has ended for good."""
        self._advance_reload()
        worker = self._current
        if worker.exit_code is not None:
            if self._is_stopping() or worker.exit_code in _FINAL_CODES:
                return worker.exit_code
            if not self._may_restart(worker):
                return 0 if self._is_stopping() else 1
            self._current = self._start("restart")
        if self._reload_requested and not self._replacement and not self._is_stopping():
            self._begin_reload()
        return None

    def _begin_reload(self) -> None:
        self._reload_requested = False
        _log.info("reload: starting a new worker, with the settings file, keys and models as they are now; %s", _KEPT)
        try:
            self._replacement = self._start("reload")
        except SettingsError as error:
            _log.error("reload failed: %s; keeping the current worker", error)

    def _advance_reload(self) -> None:
        """Switch to the replacement once it serves, or at once if the current worker has died. Drop it if it failed."""
        current, replacement = self._current, self._replacement
        if replacement is None:
            return
        if replacement.exit_code is not None:
            if not self._is_stopping():
                _log.error("reload failed: the new worker %s; keeping the current one", replacement.end())
            self._replacement = None
        elif replacement.serves or current.exit_code is not None:
            if current.exit_code is None:
                current.signal(signal.SIGHUP)
            else:
                _log.error("the worker %s; the one that a reload started takes its place", current.end())
            self._current, self._replacement = replacement, None

    def _start(self, start: Start) -> _Worker:
        worker = _Worker(self._command, start, self._arguments, self._listener)
        self._workers.append(worker)
        if self._stop_signal is not None:  # it came before the worker was in the list
            worker.signal(self._stop_signal)
        return worker

    def _wait(self) -> None:
        """Wait for a signal, or for a worker to serve or end."""
        readable, _, _ = select.select([self._wakeup, *(worker.socket for worker in self._workers)], [], [])
        if self._wakeup in readable:
            self._wakeup.recv(1)
        for worker in [worker for worker in self._workers if worker.socket in readable]:
            worker.read()
            if worker.exit_code is not None:
                self._workers.remove(worker)

    def _may_restart(self, worker: _Worker) -> bool:
        """Log how the worker died, and wait if workers die early. Return False if no other is to be started."""
        self._early_deaths = self._early_deaths + 1 if worker.lifetime_s < _EARLY_S else 1
        if self._early_deaths >= _MAX_EARLY_DEATHS:
            within = f"{self._early_deaths} times in a row within {_EARLY_S:.0f} s of its start"
            _log.error("the worker %s, %s; giving up", worker.end(), within)
            return False
        delay_s = self._first_delay_s * 2 ** (self._early_deaths - 2) if self._early_deaths > 1 else 0.0
        _log.error("the worker %s after %.1f s; restarting it in %g s", worker.end(), worker.lifetime_s, delay_s)
        until = time.monotonic() + delay_s
        while not self._is_stopping() and time.monotonic() < until:
            time.sleep(0.05)  # in short steps: Python resumes a sleep that a signal interrupts
        return not self._is_stopping()

    def _is_stopping(self) -> bool:
        return self._stop_signal is not None

    def _report(self) -> None:
        """Report the current state to systemd."""
        if self._is_stopping():
            self._notifier.report("stopping", "shutting down: waiting for requests in flight")
        elif self._replacement:
            self._notifier.report("reloading", "reloading: a new worker is loading its models")
        elif self._current.serves:
            self._notifier.report("ready", "serving")
        else:
            self._notifier.report("starting", "loading models")

    def _on_stop(self, number: int, _: FrameType | None) -> None:
        self._stop_signal = number
        for worker in self._workers:
            worker.signal(number)
        self._wake()

    def _on_reload(self, _: int, __: FrameType | None) -> None:
        self._reload_requested = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake already
            self._waker.send(b"!")


def _on_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):  # there is no standard input, or it is closed
        return False
