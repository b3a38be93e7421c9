"""Forecast: whether a request will be answered in time, at the measured throughput. No queue, no engine."""

from __future__ import annotations

from nearfar.core.errors import MAX_RETRY_AFTER_S, Overloaded
from nearfar.telemetry.stopwatch import Stopwatch

# The share of its time that a new request may be forecast to take: throughput varies, and a late answer is wasted work.
MAX_TIME_RATIO = 0.8


def late_error(model: str, stopwatch: Stopwatch, own: int, ahead: int, tokens_per_s: float) -> Overloaded:
    """Return the error for a request of ``own`` tokens that can't be answered in time after ``ahead`` others."""
    left_s = stopwatch.left_s()
    needed_s = stopwatch.timeout_s - left_s + (own + ahead) / tokens_per_s
    fits = int(left_s * MAX_TIME_RATIO * tokens_per_s) - ahead
    retry_after_s = min(max(needed_s - stopwatch.timeout_s * MAX_TIME_RATIO, 1.0), MAX_RETRY_AFTER_S)
    at_once = f"send at most {fits:,} tokens at once, or " if 0 < fits < own else ""
    return Overloaded(
        f"{model} would need {needed_s:,.1f} s for this request, and the limit is {stopwatch.timeout_s:g} s "
        f"(request_timeout_s, or the header x-nearfar-timeout-s): it has {own:,} tokens, {ahead:,} run before it, and "
        f"{tokens_per_s:,.0f} run a second; {at_once}try again in {retry_after_s:.0f} s",
        retry_after_s=retry_after_s,
    )
