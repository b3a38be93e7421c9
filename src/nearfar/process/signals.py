"""What a worker is told by signals and by its line to whoever started it, and what it tells over that."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket

# How an operator, Ctrl-C, and whoever started another worker say stop.
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log = logging.getLogger(__name__)


class Orders:
    """What this process is told: to ``stop``, by SIGTERM, Ctrl-C, or the end of the line to whoever started it.

    ``is_followed`` where another worker serves already, which SIGHUP tells. After any other a second signal ends the
    process at once, as it would without us.
    """

    def __init__(self, line: int) -> None:
        self.stop = asyncio.Event()
        self.is_followed = False
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._ours = [number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN]  # by nohup
        for number in self._ours:
            self._loop.add_signal_handler(number, self._first, number)
        self._loop.add_reader(line, self._cut)

    def tell_ready(self) -> None:
        """Tell whoever started this process that the models are open."""
        with contextlib.suppress(OSError), socket.socket(fileno=self._line) as line:  # a pipe, or gone: nobody listens
            try:
                line.send(b"!")
            finally:
                line.detach()

    def _first(self, number: int) -> None:
        self.stop.set()
        if number == signal.SIGHUP:
            self.is_followed = True
            return
        for each in self._ours:
            self._loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    def _cut(self) -> None:
        self._loop.remove_reader(self._line)
        _log.warning("the process that started this one is gone")
        self.stop.set()
