"""One served model, in memory or not: its state, who holds it, and who waits for it. Loads and closes nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from nearfar.core.types import LoadState, ModelInfo, ModelState
from nearfar.serving.registry.opening import as_opened

if TYPE_CHECKING:
    import asyncio

    from nearfar.core.settings import OnOverflow, Settings
    from nearfar.serving.registry.discovery import Found
    from nearfar.serving.registry.opening import Model

_LONGEST_PAUSE_S = 60.0  # between two attempts to load what couldn't be loaded
_MAX_RETRY_AFTER_S = 60  # as in a lane


class Limits(NamedTuple):
    """How much a model takes: in a batch, None while it isn't in memory, and in its queue; and what it cuts."""

    batch_tokens: int | None
    queue_tokens: int
    on_overflow: OnOverflow


class Slot:
    """The place of one model. ``loading`` is the task that fills it, the wait for room included.

    ``leases`` counts requests that use the model, ``waiting`` those that will once it is there. They are told apart
    because a model that is to be closed waits for the former, while the latter wait for it to come back.
    """

    def __init__(self, found: Found, now: float) -> None:
        self.found = found
        self.bytes = found.weights.bytes_in_memory(found.info.dtype)
        self.model: Model | None = None
        self.loading: asyncio.Task[None] | None = None
        self.is_opening = False
        self.is_leaving = False
        self.leases = 0
        self.waiting = 0
        self.last_used = now
        self.failure: Exception | None = None
        self._failures = 0
        self._retry_at = -math.inf
        self._began = now
        self.load_s = 0.0

    @property
    def info(self) -> ModelInfo:
        """Tell all that is true of the model; before it was ever opened, as far as its files and the settings say."""
        return self.found.info

    @property
    def name(self) -> str:
        """Give the name that answers carry."""
        return self.info.name

    @property
    def pin(self) -> bool:
        """Tell whether the model is closed by nothing but an order."""
        return self.found.wanted.pin

    @property
    def state(self) -> LoadState:
        """Say where the model is."""
        if self.model:
            return "unloading" if self.is_leaving else "loaded"
        return "loading" if self.is_loading else "unloaded"

    @property
    def is_loading(self) -> bool:
        """Tell whether a task is about to fill the slot. One that was cancelled before its first step is none."""
        return self.loading is not None and not self.loading.done()

    @property
    def is_idle(self) -> bool:
        """Tell whether the model could be closed now without anybody noticing."""
        return self.state == "loaded" and not self.leases and not self.waiting

    def limits(self, settings: Settings) -> Limits:
        """Tell how much the model takes."""
        batch_tokens = self.model.lane.batch_tokens if self.model else None
        return Limits(batch_tokens, settings.queue_tokens, self.found.wanted.on_overflow or settings.on_overflow)

    def goes_by(self, name: str) -> bool:
        """Tell whether a request that says ``name`` means this model; it may say it as the settings do, or a path."""
        return name in {self.name, self.found.wanted.name, *self.info.aliases}

    def take(self, now: float) -> Model | None:
        """Lease the model, if it is there and is to stay. ``give_back`` ends the lease."""
        if self.model is None or self.is_leaving:
            return None
        self.leases += 1
        self.last_used = now
        return self.model

    def give_back(self, now: float) -> None:
        """End a lease."""
        self.leases -= 1
        self.last_used = now

    def begin(self, now: float) -> None:
        """Note that room was made and that the model is being opened now."""
        self.is_opening = True
        self._began = now

    def filled(self, model: Model, now: float) -> None:
        """Put the model in."""
        self.found = as_opened(self.found, model)
        self.bytes = self.found.weights.bytes_in_memory(self.info.dtype)
        self.model = model
        self.is_opening = False
        self.last_used = now
        self.failure = None
        self._failures = 0
        self.load_s = now - self._began

    def failed(self, failure: Exception, now: float) -> None:
        """Note why the model can't be opened, and let no one try again for a while, longer each time."""
        self.is_opening = False
        self.failure = failure
        self.load_s = now - self._began
        self._failures += 1
        self._retry_at = now + min(2.0 ** (self._failures - 1), _LONGEST_PAUSE_S)

    def forgive(self) -> None:
        """Let the next attempt be made at once."""
        self._retry_at = -math.inf

    def emptied(self) -> None:
        """Note that the model is closed."""
        self.model = None
        self.is_leaving = False

    def pause_s(self, now: float) -> int:
        """Give the seconds before another attempt to load may be made; 0 where it may be made now."""
        return math.ceil(max(self._retry_at - now, 0.0))

    def load_takes_s(self, now: float) -> int:
        """Estimate the seconds until the model is there, from how long its last load took."""
        passed = now - self._began if self.is_opening else 0.0
        return min(max(math.ceil(self.load_s - passed), 1), _MAX_RETRY_AFTER_S)

    def closes_in_s(self, now: float) -> float | None:
        """Give the seconds until the model has been idle for too long; None where it stays, or isn't there."""
        idle_timeout_s = self.found.wanted.idle_timeout_s
        if idle_timeout_s is None or self.pin or self.state != "loaded":
            return None
        return max(self.last_used + idle_timeout_s - now, 0.0) if self.is_idle else idle_timeout_s

    def describe(self, now: float) -> ModelState:
        """Tell whether the model is there and who uses it."""
        return ModelState(
            name=self.name,
            state=self.state,
            bytes=self.bytes,
            pin=self.pin,
            requests=self.leases + self.waiting,
            closes_in_s=self.closes_in_s(now),
        )
