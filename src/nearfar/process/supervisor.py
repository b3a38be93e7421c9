"""The process that stays: it holds the port, keeps a worker serving on it, and passes signals on.

A forward that hangs, a crash inside a library, and the kernel when memory has run out all end a whole process. That is
the worker's; the port stays open meanwhile, and who connects waits until the next worker takes the call. Knows no model
and no HTTP, and imports neither, so it takes little memory.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Literal

from nearfar.core.errors import SettingsError, SetupError
from nearfar.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from nearfar.core.settings import Settings

# How a worker starts: as the ``first``; ``again``, after one that died; or ``beside`` one that serves until it can too.
Start = Literal["first", "again", "beside"]

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

    ``command`` starts a worker; between it and the ``arguments`` come the numbers of two open files, the port and the
    line to this process, and how it starts. A worker that ends with a code of its own choice isn't restarted.
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


class _Worker:
    """One worker process, and the line to it: it says there that it serves, and each hears when the other is gone."""

    def __init__(self, command: Sequence[str], start: Start, arguments: Sequence[str], port: socket.socket) -> None:
        self.line, theirs = socket.socketpair()
        with theirs:
            files = (port.fileno(), theirs.fileno())
            whole = [*command, *map(str, files), start, *arguments]
            try:
                # In a group of its own, so that Ctrl-C reaches it once, through here.
                self._process = subprocess.Popen(whole, pass_fds=files, process_group=0)  # noqa: S603 — this very program
            except OSError as error:
                self.line.close()
                why = f"no worker process can be started: {error.strerror}; see ulimit -u and -n"
                raise SettingsError(why) from error
        self._began = time.monotonic()
        self.was_told = False
        self.serves = False
        self.code: int | None = None
        self.lived_s = 0.0

    def tell(self, number: int) -> None:
        """Send it a signal."""
        self.was_told = True
        self._process.send_signal(number)

    def hear(self) -> None:
        """Note what it says: that it serves, or, by ending, its exit ``code``."""
        if self.line.recv(1):
            self.serves = True
        else:
            self.line.close()
            self.code = self._process.wait()
            self.lived_s = time.monotonic() - self._began


class _Supervisor:
    """Keeps one worker serving. While the next one opens its models to take over, and the last one drains, more."""

    def __init__(self, command: Sequence[str], arguments: Sequence[str], port: socket.socket) -> None:
        self._command = command
        self._arguments = arguments
        self._port = port
        self._bell, self._button = socket.socketpair()  # a signal's handler presses it
        self._button.setblocking(False)  # noqa: FBT003 — socket's own signature
        self._workers: list[_Worker] = []
        self._following: _Worker | None = None
        self._code = 0
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
        with self._bell, self._button:
            self._serving = self._begin("first")
            while not self._is_over():
                self._listen()
                if self._renew and not self._following and not self._is_stopping():
                    self._following = self._begin_following()
            while self._workers:  # the last ones drain
                self._listen()
            return self._code

    def _is_stopping(self) -> bool:
        return self._stop is not None

    def _begin(self, start: Start) -> _Worker:
        worker = _Worker(self._command, start, self._arguments, self._port)
        self._workers.append(worker)
        if self._stop is not None and not worker.was_told:
            worker.tell(self._stop)
        return worker

    def _begin_following(self) -> _Worker | None:
        """Begin the worker that is to take over; None, and all stays as it is, where there can't be one."""
        self._renew = False
        _log.info("another worker starts, to take over with the settings and models that are there now")
        try:
            return self._begin("beside")
        except SettingsError as error:
            _log.error("not renewed: %s", error)
            return None

    def _is_over(self) -> bool:
        """Look who serves from now on, and begin another where one has died; tell whether there is to be none."""
        self._look_who_follows()
        code = self._serving.code
        if code is None:
            return False
        if self._is_stopping() or code in _MEANT:
            self._code = code
            return True
        if not self._may_go_on(code, self._serving.lived_s):
            self._code = 0 if self._is_stopping() else 1
            return True
        self._serving = self._begin("again")
        return False

    def _look_who_follows(self) -> None:
        """Let the worker that is to take over do so, once it serves, or where the one before has died."""
        following, serving = self._following, self._serving
        if following is None:
            return
        if following.code is not None:
            if not self._is_stopping():
                _log.error("not renewed: the new worker %s; the one before goes on", _end(following.code))
            self._following = None
        elif following.serves or serving.code is not None:
            if serving.code is None:
                serving.tell(signal.SIGHUP)
            else:
                _log.error("the worker %s; the one that was to take over does so now", _end(serving.code))
            self._serving, self._following = following, None

    def _listen(self) -> None:
        """Wait for a signal, or for a worker to say something or to end."""
        heard, _, _ = select.select([self._bell, *(worker.line for worker in self._workers)], [], [])
        if self._bell in heard:
            self._bell.recv(1)
        for worker in [worker for worker in self._workers if worker.line in heard]:
            worker.hear()
            if worker.code is not None:
                self._workers.remove(worker)

    def _may_go_on(self, code: int, lived_s: float) -> bool:
        """Say how the worker died, and wait before the next; False where there is to be none."""
        self._deaths = self._deaths + 1 if lived_s < _SOON_S else 1
        if self._deaths >= _MOST_DEATHS:
            _log.error("the worker %s; that was %d in a row within a minute of their start", _end(code), self._deaths)
            return False
        pause_s = _PAUSE_S * 2 ** (self._deaths - 2) if self._deaths > 1 else 0.0
        _log.error("the worker %s after %.1f s; another one starts in %g s", _end(code), lived_s, pause_s)
        until = time.monotonic() + pause_s
        while not self._is_stopping() and time.monotonic() < until:
            time.sleep(0.05)  # in pieces: a signal doesn't end a sleep
        return not self._is_stopping()

    def _on_stop(self, number: int, _: FrameType | None) -> None:
        self._stop = number
        for worker in self._workers:
            worker.tell(number)
        self._ring()

    def _on_renew(self, _: int, __: FrameType | None) -> None:
        """Let another worker take over; it reads the settings anew."""
        self._renew = True
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it rings already
            self._button.send(b"!")


def _end(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _on_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):  # there is no standard input, or it is closed
        return False


def _listen(settings: Settings) -> socket.socket:
    """Bind the host and the port, IPv4 first. Raises SettingsError where that can't be."""
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
        raise SettingsError(f"can't listen on {settings.host}:{settings.port}: {reason}") from error
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
