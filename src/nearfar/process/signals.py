"""The worker's reasons to stop: signals, and the end of its supervisor."""

from __future__ import annotations

import asyncio
import logging
import signal

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log = logging.getLogger(__name__)


class StopSignals:
    """Sets the event ``stop`` at SIGTERM, SIGINT or SIGHUP, or once the supervisor is gone.

    SIGHUP means that another worker serves already; ``is_replaced`` is then True. After any other signal a second one
    ends the process at once. ``supervisor`` is the file descriptor of the socket to the supervisor.
    """

    def __init__(self, supervisor: int) -> None:
        self.stop = asyncio.Event()
        self.is_replaced = False
        self._supervisor = supervisor
        self._loop = asyncio.get_running_loop()
        self._handled = [
            number for number in _STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
        ]  # by nohup
        for number in self._handled:
            self._loop.add_signal_handler(number, self._on_signal, number)
        self._loop.add_reader(supervisor, self._on_supervisor_gone)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)  # ``__main__`` has blocked SIGHUP

    def _on_signal(self, number: int) -> None:
        self.stop.set()
        if number == signal.SIGHUP:
            self.is_replaced = True
            return
        for handled in self._handled:
            self._loop.remove_signal_handler(handled)
            signal.signal(handled, signal.SIG_DFL)

    def _on_supervisor_gone(self) -> None:
        self._loop.remove_reader(self._supervisor)
        _log.warning("the supervisor process is gone; stopping")
        self.stop.set()
