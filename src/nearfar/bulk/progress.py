"""The line that shows how far a command is, on a terminal all the time, and elsewhere now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from nearfar.bulk.partial_results import Done

_EVERY_S, _EVERY_S_IN_A_LOG = 0.5, 30.0
_MINUTE_S, _HOUR_S = 60, 3600
_WIDTH = 110


class ProgressLine:
    """Writes to ``stream``. The rates are of what was done since the first call of ``show``.

    ``share`` returns how much of the input is done, from 0 to 1; None if its size is unknown.
    """

    def __init__(self, stream: TextIO, share: Callable[[], float | None], unit: str = "rows") -> None:
        self._stream = stream
        self._read_share = share
        self._unit = unit
        self._begun: Done | None = None
        self._share = 0.0
        self._started = self._shown = 0.0
        self._is_terminal = stream.isatty()

    def show(self, done: Done) -> None:
        """Show how far the command is, if that is due."""
        now = time.monotonic()
        if self._begun is None:
            self._begun, self._share = done, self._read_share() or 0.0
            self._started = self._shown = now
        if now - self._shown >= (_EVERY_S if self._is_terminal else _EVERY_S_IN_A_LOG):
            self._shown = now
            line = self.describe(done)
            self._stream.write(f"\r{line:<{_WIDTH}}" if self._is_terminal else f"{line}\n")
            self._stream.flush()

    def describe(self, done: Done) -> str:
        """Return rows, rates, the time that is left, and bad rows."""
        passed_s = max(time.monotonic() - self._started, 1e-9)
        begun = self._begun or Done()
        rows, tokens = done.rows_read - begun.rows_read, done.tokens - begun.tokens
        parts = [f"{done.rows_read:,} {self._unit}", f"{rows / passed_s:,.0f} {self._unit}/s"]
        if tokens:
            parts.append(f"{tokens / passed_s:,.0f} tokens/s")
        share = self._read_share()
        if share is not None and share > self._share:
            parts.append(f"{share:.0%}")
            parts.append(f"{_duration(passed_s * (1 - share) / (share - self._share))} left")
        if done.bad:
            parts.append(f"{sum(done.bad.values()):,} bad")
        return ", ".join(parts)

    def end(self) -> None:
        """End the line on a terminal."""
        if self._is_terminal:
            self._stream.write("\r" + " " * _WIDTH + "\r")


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
