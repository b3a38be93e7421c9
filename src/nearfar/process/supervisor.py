"""The supervisor: owns the listening sockets, keeps a worker process serving on them, and passes signals on.

A forward pass that hangs, a crash inside a library, an event loop that is stuck and the kernel's out-of-memory killer
end the worker alone. The port stays open, so new connections wait in the backlog for the next worker. Imports no models
and no HTTP server, to stay small.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Sequence
from types import FrameType

from nearfar.core.environment import injected_variables, pop_notify_socket
from nearfar.core.errors import SettingsError, SetupError
from nearfar.core.settings import Settings
from nearfar.process.channel import WorkerConfig
from nearfar.process.child import Child, Children, Start
from nearfar.process.listener import open_listeners, raise_file_limit
from nearfar.process.notify import Notifier
from nearfar.telemetry.logs import configure_logging

_CANNOT_START = (1, 2)  # a worker that can't open a model, or can't read the settings
# A worker that dies within _EARLY_S of its start may do so every time: each restart then waits twice as long as the one
# before, and after _MAX_EARLY_DEATHS there is no restart. Guesses.
_EARLY_S = 60.0
_MAX_EARLY_DEATHS = 6
_FIRST_DELAY_S = 1.0
_EXIT_S = 10.0  # after drain_timeout_s; a worker takes 5 s of it at most

_KEPT = "host, port, variables and the command line stay as they were until a restart"

_log = logging.getLogger(__name__)


def supervise(
    settings: Settings, command: Sequence[str], arguments: Sequence[str], *, first_delay_s: float = _FIRST_DELAY_S
) -> int:
    """Serve until a signal. Return the exit code: 0 after a drain, 1 if the port or a model can't be opened.

    ``command`` starts a worker. It is followed by the file descriptors of the listening sockets and of the socket to
    this process, the reason for the start, and ``arguments``.
    """
    configure_logging(settings.log_format)
    if injected := injected_variables():
        _log.info("ignored variables that Kubernetes sets for a Service: %s", ", ".join(sorted(injected)))
    notifier = Notifier(pop_notify_socket())
    try:
        raise_file_limit()
        with contextlib.ExitStack() as stack:
            listeners = [stack.enter_context(opened) for opened in open_listeners(settings.host, settings.port)]
            code = _Supervisor(settings, Children(command, arguments, listeners), notifier, first_delay_s).run()
    except SetupError as error:
        _log.error("can't start: %s", error)
        return 1
    if code < 0:  # a signal killed the worker while it drained, and ends this process the same way
        signal.signal(-code, signal.SIG_DFL)
        signal.raise_signal(-code)
    return code


class _Supervisor:
    """Keeps the ``current`` worker serving. A reload starts its ``replacement``, which takes over once it serves."""

    def __init__(
        self,
        settings: Settings,
        workers: Children,
        notifier: Notifier,
        first_delay_s: float,
    ) -> None:
        self._settings = settings  # of the current worker
        self._served = WorkerConfig(settings=settings).to_line()  # what the current worker has reported last
        self._has_served = False
        self._workers = workers
        self._notifier = notifier
        self._first_delay_s = first_delay_s
        self._wakeup, self._waker = socket.socketpair()  # a signal handler writes, so that select returns
        self._waker.setblocking(False)  # noqa: FBT003 — socket's own signature
        self._replacement: Child | None = None
        self._stop_signal: int | None = None
        self._reload_requested = False
        self._early_deaths = 0
        self._restart_at: float | None = None  # once the current worker has died
        self._kill_at = math.inf

    def run(self) -> int:
        """Keep a worker serving until a signal. Return its exit code, negative if a signal killed it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup
        if not ignored and not _on_terminal():  # a terminal that closes sends it too, and then it means stop
            signal.signal(signal.SIGHUP, self._on_reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # which ``__main__`` has blocked
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
        if worker.exit_code is None:
            self._remember(worker)
        elif self._is_stopping():
            return self._final_code(worker.exit_code)
        elif not self._has_served and worker.exit_code in _CANNOT_START:
            if not self._replacement and not self._reload_requested:
                return worker.exit_code
        elif self._restart_at is None:
            self._plan_restart(f"the worker {worker.describe_exit()}", worker.age_s)
        elif self._early_deaths >= _MAX_EARLY_DEATHS and not self._replacement:
            return 1
        elif time.monotonic() >= self._restart_at:
            self._restart()
        if self._reload_requested and not self._is_stopping():
            self._begin_reload()
        return None

    def _remember(self, worker: Child) -> None:
        """Store what the current worker serves with, for the one after it."""
        self._has_served |= worker.serves
        if worker.served and worker.served != self._served:
            self._served = worker.served
            self._settings = WorkerConfig.from_line(worker.served).settings

    def _final_code(self, exit_code: int) -> int:
        """Return the exit code for a shutdown. 0 if the worker had died before, and none runs."""
        if self._restart_at is not None:
            return 0
        return -(self._stop_signal or 0) if exit_code == -signal.SIGKILL else exit_code

    def _begin_reload(self) -> None:
        self._reload_requested = False
        if self._replacement:
            _log.warning("reload: another one was requested; ending the new worker, which doesn't serve yet")
            self._replacement.kill()
            self._replacement = None
        _log.info("reload: starting a new worker, with the settings file, keys and models as they are now; %s", _KEPT)
        try:
            self._replacement = self._start("reload")
        except SettingsError as error:
            _log.error("reload failed: %s; keeping the current worker", error)

    def _advance_reload(self) -> None:
        """Switch to the replacement once it serves. Drop it if it failed, or takes too long."""
        replacement = self._replacement
        if replacement is None:
            return
        if replacement.exit_code is not None:
            if not self._is_stopping():
                _log.error("reload failed: the new worker %s; keeping the current one", replacement.describe_exit())
            self._replacement = None
        elif replacement.serves:
            if self._current.exit_code is None:
                self._current.send_signal(signal.SIGHUP)
            self._current, self._replacement, self._restart_at = replacement, None, None
        elif replacement.age_s >= (limit_s := self._settings.reload_timeout_s):
            why = f"the new worker doesn't serve after {limit_s:g} s (reload_timeout_s)"
            _log.error("reload failed: %s; keeping the current one", why)
            replacement.kill()
            self._replacement = None

    def _plan_restart(self, reason: str, lifetime_s: float) -> None:
        """Log why no worker serves, and plan when to start one: later if workers die early."""
        self._early_deaths = self._early_deaths + 1 if lifetime_s < _EARLY_S else 1
        delay_s = self._first_delay_s * 2 ** (self._early_deaths - 2) if self._early_deaths > 1 else 0.0
        self._restart_at = time.monotonic() + delay_s
        if self._early_deaths >= _MAX_EARLY_DEATHS:
            within = f"{self._early_deaths} times in a row within {_EARLY_S:.0f} s of its start"
            _log.error("%s, %s; giving up", reason, within)
        else:
            _log.error("%s after %.1f s; restarting it in %g s", reason, lifetime_s, delay_s)

    def _restart(self) -> None:
        self._restart_at = None
        try:
            self._current = self._start("restart")
        except SettingsError as error:
            self._plan_restart(str(error), 0.0)

    def _start(self, start: Start) -> Child:
        worker = self._workers.start(start, self._served if start == "restart" else b"")
        if self._stop_signal is not None:  # it came before the worker was among the others
            worker.send_signal(self._stop_signal)
        return worker

    def _wait(self) -> None:
        """Wait for a signal, for messages of workers, or for the next thing to do."""
        until = min(self._restart_at or math.inf, self._kill_at)
        if self._replacement:
            until = min(until, self._replacement.started + self._settings.reload_timeout_s)
        self._workers.wait(self._wakeup, until, self._settings.heartbeat_timeout_s)
        if time.monotonic() >= self._kill_at:
            self._kill_at = math.inf
            _log.error("shutting down: a worker doesn't end; killing it")
            self._workers.kill()

    def _is_stopping(self) -> bool:
        return self._stop_signal is not None

    def _report(self) -> None:
        """Report the current state to systemd."""
        if self._is_stopping():
            self._notifier.report("stopping", "shutting down: waiting for requests in flight")
        elif self._replacement:
            self._notifier.report("reloading", "reloading: a new worker is loading its models")
        elif self._current.serves and self._current.exit_code is None:
            self._notifier.report("ready", "serving")
        else:
            self._notifier.report("starting", "loading models")

    def _on_stop(self, number: int, _: FrameType | None) -> None:
        if self._is_stopping():  # whatever this process does: it may wait for a worker that doesn't end
            self._workers.kill()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._stop_signal = number
        self._kill_at = time.monotonic() + self._settings.drain_timeout_s + _EXIT_S
        self._workers.send_signal(number)
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
