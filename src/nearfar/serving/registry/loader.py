"""Loader: loads and unloads models, one load at a time, within the memory budget, and never while a request uses them.

One at a time, because libraries set process-wide state while they load, such as Torch its default precision; and so
that no two loads count on the same free memory. Loads take turns in the order they were requested, so a large model
doesn't wait behind small ones that keep fitting.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence

from nearfar.core.errors import ModelNotReady, SetupError
from nearfar.serving.registry.eviction import LoadedModel, choose_evictions
from nearfar.serving.registry.opening import Opener
from nearfar.serving.registry.slot import Slot
from nearfar.telemetry.events import ModelLoaded, ModelUnloaded, Observer, UnloadReason

# How long a model in use keeps its memory while another waits for it. Then new requests for it wait until it is loaded
# again, so that the other model is loaded at all. A guess: about the time that a small model takes to load.
_GRACE_S = 1.0

_log = logging.getLogger(__name__)


class StateCondition:
    """Wakes waiting tasks whenever the state of a slot changes. Used on the event loop only.

    An asyncio.Condition would need a lock around every change, and ending a lease must not wait. No lock is needed:
    there is no await between checking the state and starting to wait, so no change is missed.
    """

    def __init__(self) -> None:
        self.waiters: set[asyncio.Future[None]] = set()

    def notify_all(self) -> None:
        """Wake all waiting tasks to check the state again."""
        for future in self.waiters:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the next change, at most ``timeout_s``."""
        future = asyncio.get_running_loop().create_future()
        self.waiters.add(future)
        try:
            await asyncio.wait({future}, timeout=timeout_s)
        finally:
            self.waiters.discard(future)

    async def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Wait until the predicate is true."""
        while not predicate():
            await self.wait()


class Loader:
    """Loads and unloads the models of ``slots``, a list that its owner fills. ``clock`` returns seconds."""

    def __init__(
        self,
        slots: Sequence[Slot],
        opener: Opener,
        observe: Observer,
        budget: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._opener = opener
        self._observe = observe
        self._budget = budget
        self._clock = clock
        self._turn = asyncio.Lock()
        self.changed = StateCondition()
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def wait_until_loaded(self, slot: Slot) -> None:
        """Load the slot's model, and return as soon as it is loaded: without an await in between, it can be leased.

        All waiting requests share one load; one that is cancelled leaves it to the others. Raises ModelNotReady where
        the model can't be loaded.
        """
        slot.waiting += 1
        try:
            # A loop, because the model may be unloaded again before this task runs.
            while slot.state != "loaded":
                await self._attempt(slot)
        finally:
            self._stop_waiting(slot)

    def start_loading(self, slot: Slot) -> asyncio.Task[None]:
        """Start to load the model, or return the task that does. Raises ModelNotReady soon after a failed load."""
        if self._is_closed:
            raise ModelNotReady("the server is shutting down", retry_after_s=1)
        if slot.loading and not slot.loading.done():
            return slot.loading
        if backoff_s := slot.backoff_s(self._clock()):
            raise ModelNotReady(f"{slot.name} failed to load; the server's log says why", retry_after_s=backoff_s)
        task = asyncio.create_task(self._load(slot), name=f"loading {slot.name}")
        slot.start_loading(task)
        task.add_done_callback(lambda task: self._end_loading(slot, task))
        return task

    async def load(self, slot: Slot) -> None:
        """Load the model if it isn't loaded, however soon after a failed load. Raises why it can't be loaded."""
        slot.reset_backoff()
        slot.waiting += 1
        try:
            while slot.state != "loaded":
                await self._attempt(slot)
                if slot.failure:
                    raise slot.failure
        finally:
            self._stop_waiting(slot)

    async def unload(self, slot: Slot) -> None:
        """Unload the model once it has loaded and no request uses it any more. Cancelled before that, it stays."""
        await self.changed.wait_for(lambda: slot.state in {"loaded", "unloaded"})
        if slot.state == "loaded":
            await self._unload(slot, "asked")

    async def unload_idle(self) -> float:
        """Unload models that were idle for too long; return the seconds until the next is due, or infinity."""
        due_s = math.inf
        for slot in self._slots:
            idle_timeout_s = slot.discovered.settings.idle_timeout_s
            if slot.pin:
                continue
            left_s = slot.last_used + idle_timeout_s - self._clock() if slot.is_idle else idle_timeout_s
            if left_s <= 0:
                await self._unload(slot, "idle")
            due_s = min(due_s, left_s if left_s > 0 else idle_timeout_s)
        return due_s

    async def close(self) -> None:
        """Load no more, and unload every model."""
        self._is_closed = True
        loads = [slot.loading for slot in self._slots if slot.loading]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, *self._closing, return_exceptions=True)
        for slot in self._slots:
            if slot.model:
                await slot.model.lane.close()
                slot.finish_unloading()
        self.changed.notify_all()

    async def _attempt(self, slot: Slot) -> None:
        """Wait until a load has ended, successfully or not.

        Awaiting the task itself would raise when another caller cancels it, and cancel it when this caller leaves.
        """
        await asyncio.wait({self.start_loading(slot)})

    def _stop_waiting(self, slot: Slot) -> None:
        """Count one request less that waits; cancel a load that none waits for, unless its engine opens already."""
        slot.waiting -= 1
        if slot.loading and not slot.waiting and slot.opening_since is None:
            slot.loading.cancel()  # so that no other model is evicted in vain
        self.changed.notify_all()

    def _end_loading(self, slot: Slot, task: asyncio.Task[None]) -> None:
        slot.end_loading(task)
        self.changed.notify_all()

    async def _load(self, slot: Slot) -> None:
        """Wait for a turn and for memory, and open the model. The slot gets the model or the failure."""
        async with self._turn:
            await self.changed.wait_for(lambda: slot.state != "unloading")
            if slot.state == "loaded":  # unloading was cancelled
                return
            try:
                await self._make_room(slot)
                slot.start_opening(self._clock())
                _log.info("model %s is loading", slot.name)
                model = await self._opener.open(slot.discovered)
            except Exception as error:  # noqa: BLE001 — whatever an engine raises, the waiting requests must get it
                slot.fail_loading(error, self._clock())
                traceback = None if isinstance(error, SetupError) else error
                _log.error("model %s failed to load: %s", slot.name, error, exc_info=traceback)
            else:
                slot.finish_loading(model, self._clock())  # no await since it opened: a cancelled load can't lose it
            self._observe(ModelLoaded(model=slot.name, duration_s=slot.load_s, failed=slot.failure is not None))

    async def _make_room(self, slot: Slot) -> None:
        """Unload the least recently used models until this one fits; wait where all are in use."""
        grace_ends = time.monotonic() + _GRACE_S
        while (budget := self._budget) is not None:
            grace_s = grace_ends - time.monotonic()
            evicted = choose_evictions(self._loaded_models(include_busy=grace_s <= 0), slot.bytes, budget)
            if evicted == []:
                return
            if evicted:
                # One, then check again: meanwhile others may have come into use, or have been unloaded.
                await self._unload(next(other for other in self._slots if other.name == evicted[0]), "memory")
            else:
                await self.changed.wait(grace_s if grace_s > 0 else None)

    def _loaded_models(self, *, include_busy: bool) -> list[LoadedModel]:
        """Return what counts against the budget. A model that requests still wait for is never unloaded."""
        return [
            LoadedModel(
                name=slot.name,
                bytes=slot.bytes,
                last_used=slot.last_used,
                can_unload=not slot.pin
                and (slot.is_idle or (include_busy and slot.state == "loaded" and not slot.waiting)),
            )
            for slot in self._slots
            if slot.model
        ]

    async def _unload(self, slot: Slot, reason: UnloadReason) -> None:
        """Lease the model to no new request, and close it once none uses it. Cancelled before that, it stays."""
        slot.start_unloading()
        try:
            await self.changed.wait_for(lambda: not slot.leases)
        except asyncio.CancelledError:
            slot.cancel_unloading()
            self.changed.notify_all()
            raise
        # In a separate task: a model that is half closed can't stay, although the caller may leave.
        closing = asyncio.create_task(self._close(slot, reason), name=f"closing {slot.name}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)

    async def _close(self, slot: Slot, reason: UnloadReason) -> None:
        try:
            if slot.model:
                await slot.model.lane.close()
        except Exception:  # noqa: BLE001 — it must leave the slot all the same
            _log.exception("model %s failed to close", slot.name)
        slot.finish_unloading()
        self.changed.notify_all()
        self._observe(ModelUnloaded(model=slot.name, reason=reason))
        _log.info("model %s unloaded (%s)", slot.name, reason)
