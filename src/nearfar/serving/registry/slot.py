"""Slot: one served model, in memory or not: its state, its leases and its waiting requests. Loads nothing itself."""

from __future__ import annotations

import asyncio
import math
from typing import NamedTuple

from nearfar.core.errors import MAX_RETRY_AFTER_S
from nearfar.core.settings import OnOverflow
from nearfar.core.types import LoadState, ModelInfo, ModelState
from nearfar.serving.registry.discovery import DiscoveredModel
from nearfar.serving.registry.opening import Model, as_loaded

_MAX_LOAD_BACKOFF_S = 60.0


class ModelLimits(NamedTuple):
    """The limits of a model: tokens in a batch (None while it isn't loaded), tokens in its queue; what it truncates."""

    batch_tokens: int | None
    queue_tokens: int
    on_overflow: OnOverflow


class Slot:
    """One served model. ``state`` goes unloaded → loading → loaded → unloading → unloaded.

    A model that is being unloaded may stay (loading is cancelled, unloading is cancelled), and may already have a load
    that waits for it to be gone: then it goes from unloading to loading.
    """

    def __init__(self, discovered: DiscoveredModel, now: float) -> None:
        self.discovered = discovered
        self.info: ModelInfo = discovered.info
        self.name = self.info.name
        self.bytes = discovered.weights.bytes_in_memory(self.info.dtype)
        self.state: LoadState = "unloaded"
        # Present while the state is loaded or unloading.
        self.model: Model | None = None
        # The task that loads the model; it waits for its turn and for memory first.
        self.loading: asyncio.Task[None] | None = None
        # When the engine began to open; None unless it is opening.
        self.opening_since: float | None = None
        # Requests that use the model, and requests that wait for it: unloading waits for the former only.
        self.leases = 0
        self.waiting = 0
        self.last_used = now
        # Why the last load failed.
        self.failure: Exception | None = None
        # How long the last load took, without the wait for its turn and for memory.
        self.load_s = 0.0
        self._failures = 0
        self._retry_at = -math.inf

    def is_called(self, name: str) -> bool:
        """Return whether this is the model's name, an alias, or what the settings call it (which may be a path)."""
        return name in {self.name, self.discovered.settings.name, *self.info.aliases}

    @property
    def is_idle(self) -> bool:
        """Return whether no request would notice if the model were unloaded now."""
        return self.state == "loaded" and not self.leases and not self.waiting

    @property
    def pin(self) -> bool:
        """Return whether the model is only unloaded by an explicit request."""
        return self.discovered.settings.pin

    def start_loading(self, task: asyncio.Task[None]) -> None:
        """Set the task that loads the model, once it is unloaded and there is memory."""
        self.loading = task
        self.failure = None
        if self.state == "unloaded":
            self.state = "loading"

    def start_opening(self, now: float) -> None:
        """Record that there is memory and that the engine opens now."""
        self.opening_since = now

    def finish_loading(self, model: Model, now: float) -> None:
        """Set the loaded model."""
        self._end_opening(now)
        self.discovered = as_loaded(self.discovered, model.info)
        self.info = self.discovered.info
        self.bytes = self.discovered.weights.bytes_in_memory(self.info.dtype)
        self.model = model
        self.state = "loaded"
        self.last_used = now
        self._failures = 0

    def fail_loading(self, failure: Exception, now: float) -> None:
        """Set why the model can't be loaded, and refuse another attempt for a while, longer each time."""
        self._end_opening(now)
        self.failure = failure
        self._failures += 1
        self._retry_at = now + min(2.0 ** (self._failures - 1), _MAX_LOAD_BACKOFF_S)

    def end_loading(self, task: asyncio.Task[None]) -> None:
        """Forget the task that loaded the model, failed, or was cancelled."""
        if self.loading is task:
            self.loading = None
            self.opening_since = None
            if self.state == "loading":
                self.state = "unloaded"

    def start_unloading(self) -> None:
        """Lease the model to no other request."""
        self.state = "unloading"

    def cancel_unloading(self) -> None:
        """Keep the model after all."""
        self.state = "loaded"

    def finish_unloading(self) -> None:
        """Remove the model, which is closed."""
        self.model = None
        self.state = "loading" if self.loading and not self.loading.done() else "unloaded"

    def reset_backoff(self) -> None:
        """Allow the next attempt to load at once."""
        self._retry_at = -math.inf

    def backoff_s(self, now: float) -> int:
        """Return the seconds until another attempt to load may be made; 0 if it may be made now."""
        return math.ceil(max(self._retry_at - now, 0.0))

    def estimate_load_s(self, now: float) -> int:
        """Estimate the seconds until the model is loaded, from how long its last load took."""
        passed_s = 0.0 if self.opening_since is None else now - self.opening_since
        return min(max(math.ceil(self.load_s - passed_s), 1), MAX_RETRY_AFTER_S)

    def unloads_in_s(self, now: float) -> float:
        """Return the seconds until the model is unloaded for being idle; infinite if it stays, or isn't loaded."""
        idle_timeout_s = self.discovered.settings.idle_timeout_s
        if self.pin or self.state != "loaded":
            return math.inf
        return max(self.last_used + idle_timeout_s - now, 0.0) if self.is_idle else idle_timeout_s

    def describe(self, now: float) -> ModelState:
        """Return whether the model is loaded and how many requests use it."""
        unloads_in_s = self.unloads_in_s(now)
        return ModelState(
            name=self.name,
            state=self.state,
            bytes=self.bytes,
            pin=self.pin,
            requests=self.leases + self.waiting,
            closes_in_s=None if unloads_in_s == math.inf else unloads_in_s,
        )

    def limits(self, queue_tokens: int) -> ModelLimits:
        """Return the model's limits; its queue's are the server's."""
        batch_tokens = self.model.lane.batch_tokens if self.model else None
        return ModelLimits(batch_tokens, queue_tokens, self.discovered.settings.on_overflow)

    def _end_opening(self, now: float) -> None:
        if self.opening_since is not None:
            self.load_s = now - self.opening_since
            self.opening_since = None
