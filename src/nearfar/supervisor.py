"""The process that stays: it holds the port, keeps a worker serving on it, and passes signals on.

A forward that hangs, a crash inside a library, and the kernel when memory has run out all end a whole process. That is
the worker's; the port stays open meanwhile, and who connects waits until the next worker takes the call. Knows no model
and no HTTP, and imports neither, so it takes little memory.
"""

from __future__ import annotations

import logging
import resource
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from nearfar.errors import ConfigError, SetupError
from nearfar.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from nearfar.config import Settings

BACKLOG = 2048
_MEANT = (0, 1, 2)  # exit codes of a worker that has nothing to be restarted for: it drained, or can't start as set up
# A worker that dies this soon after its start may do so for ever. The next one then waits a while, longer each time,
# and after so many in a row there is none: whoever runs this program has to look. Guesses.
_SOON_S = 60.0
_MOST_DEATHS = 6
_PAUSE_S = 1.0
_WANTED_FILES = 65_536  # each connection is one; macOS starts a process with 256
_FEW_FILES = 256

_log = logging.getLogger(__name__)


def supervise(settings: Settings, command: Sequence[str], arguments: Sequence[str]) -> int:
    """Serve until a signal; give the exit code: 0 after a drain, 1 when the port or a model can't be opened.

    ``command`` starts a worker; between it and the ``arguments`` come the numbers of two open files: the port, and
    one that ends with this process. A worker that ends with a code of its own choice isn't restarted.
    """
    configure_logging(settings.log_format)
    try:
        _raise_limit_of_files()
        with _listen(settings) as port:
            code = _Supervisor(command, arguments, port).run()
    except SetupError as error:
        _log.error("can't start: %s", error)
        return 1
    if code < 0:  # it ended by a signal that was meant for both
        signal.signal(-code, signal.SIG_DFL)
        signal.raise_signal(-code)
    return code


class _Supervisor:
    """Runs one worker after another."""

    def __init__(self, command: Sequence[str], arguments: Sequence[str], port: socket.socket) -> None:
        self._command = command
        self._arguments = arguments
        self._port = port
        self._lifeline, self._workers_end = socket.socketpair()
        self._worker: subprocess.Popen[bytes] | None = None
        self._stop: int | None = None
        self._renew = False
        self._deaths = 0

    def run(self) -> int:
        """Keep a worker running; give the last one's exit code, or the signal that ended it as a negative number."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup
        if not ignored and not _on_terminal():  # one that closes sends it too, and then means the end
            signal.signal(signal.SIGHUP, self._on_renew)
        with self._lifeline, self._workers_end:
            code = 0
            while not self._is_stopping():
                self._renew = False
                started = time.monotonic()
                code = self._run_one()
                if self._is_stopping() or (code in _MEANT and not self._renew):
                    break
                if not self._renew and not self._may_go_on(code, time.monotonic() - started):
                    return 1
            return code

    def _is_stopping(self) -> bool:
        return self._stop is not None

    def _run_one(self) -> int:
        files = (self._port.fileno(), self._workers_end.fileno())
        try:
            command = [*self._command, *map(str, files), *self._arguments]
            # In a group of its own, so that Ctrl-C reaches it once, through here.
            self._worker = subprocess.Popen(command, pass_fds=files, process_group=0)  # noqa: S603 — this very program
        except OSError as error:
            raise ConfigError(f"no worker process can be started: {error.strerror}; see ulimit -u and -n") from error
        if self._stop is not None:
            self._worker.send_signal(self._stop)
        code = self._worker.wait()
        self._worker = None
        return code

    def _may_go_on(self, code: int, lived_s: float) -> bool:
        """Say how the worker died, and wait before the next; False where there is to be none."""
        self._deaths = self._deaths + 1 if lived_s < _SOON_S else 1
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        if self._deaths >= _MOST_DEATHS:
            _log.error("the worker %s; that was %d in a row within a minute of their start", how, self._deaths)
            return False
        pause_s = _PAUSE_S * 2 ** (self._deaths - 2) if self._deaths > 1 else 0.0
        _log.error("the worker %s after %.1f s; another one starts in %g s", how, lived_s, pause_s)
        until = time.monotonic() + pause_s
        while not self._is_stopping() and time.monotonic() < until:
            time.sleep(0.05)  # in pieces: a signal doesn't end a sleep
        return True

    def _on_stop(self, number: int, _: FrameType | None) -> None:
        self._stop = number
        if self._worker:
            self._worker.send_signal(number)

    def _on_renew(self, _: int, __: FrameType | None) -> None:
        """Let the worker drain; the next one reads the settings anew."""
        self._renew = True
        if self._worker:
            self._worker.send_signal(signal.SIGTERM)


def _on_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):  # there is no standard input, or it is closed
        return False


def _listen(settings: Settings) -> socket.socket:
    """Bind the host and the port, IPv4 first. Raises ConfigError where that can't be."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, kind, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        port = socket.socket(family, kind)
        try:
            port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last run may linger
            port.bind(address)
            port.listen(BACKLOG)
        except BaseException:
            port.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ConfigError(f"can't listen on {settings.host}:{settings.port}: {reason}") from error
    port.setblocking(False)  # noqa: FBT003 — socket's own signature
    return port


def _raise_limit_of_files() -> None:
    """Let the process have as many files open as it may at most; say so where that is few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft < _FEW_FILES:
        _log.warning("only %d files may be open at once, and each connection is one; see ulimit -Hn", soft)
