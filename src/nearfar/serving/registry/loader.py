"""Filling and emptying slots: one load at a time, within the memory budget, and never under a request's hands.

One at a time, because the libraries underneath set things for the whole process while they load, such as Torch its
default precision; and so that no two loads count on the same free memory. They get their turns in the order they were
asked for, so a large model isn't kept waiting by small ones that keep fitting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nearfar.core.errors import ModelNotReady, SetupError
from nearfar.serving.registry.condition import Changes
from nearfar.serving.registry.eviction import Held, choose_to_close
from nearfar.telemetry.events import LoadRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nearfar.serving.registry.opening import Model, Opener
    from nearfar.serving.registry.slot import Slot
    from nearfar.telemetry.events import CloseReason, Observer

# How long a model in use is left to its users while another waits for its room. Then new requests for it have to wait
# until it comes back, so that the other one's turn comes at all. A guess: about what a small model takes to load.
_PATIENCE_S = 1.0

_log = logging.getLogger(__name__)


class Loader:
    """Loads and closes the models of ``slots``, a list that its owner fills. ``clock`` gives seconds."""

    def __init__(
        self,
        slots: Sequence[Slot],
        opener: Opener,
        observer: Observer,
        budget: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._opener = opener
        self._observer = observer
        self._budget = budget
        self._clock = clock
        self._turn = asyncio.Lock()
        self._changes = Changes()
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def hold(self, slot: Slot) -> Model:
        """Lease the slot's model, loading it where it isn't there. ``release`` ends the lease.

        One load serves everybody who waits; who leaves meanwhile takes it from nobody else. Raises ModelNotReady
        where the model can't be loaded.
        """
        if model := slot.take(self._clock()):
            return model
        with self._waiting(slot):
            # In a loop: by the time this task runs again, the model may have gone by order.
            while not (model := slot.take(self._clock())):
                await self._attempt(slot)
            return model

    def release(self, slot: Slot) -> None:
        """End a lease."""
        slot.give_back(self._clock())
        if not slot.leases:
            self._changes.tell()

    def begin(self, slot: Slot) -> asyncio.Task[None]:
        """Begin to load the model, unless somebody has. Raises ModelNotReady so soon after a load that failed."""
        if self._is_closed:
            raise ModelNotReady("the server is shutting down", retry_after_s=1)
        if slot.loading and slot.is_loading:
            return slot.loading
        if pause_s := slot.pause_s(self._clock()):
            raise ModelNotReady(f"{slot.name} failed to load; the server's log says why", retry_after_s=pause_s)
        slot.failure = None  # of an earlier load; this one may end without any, when it is cancelled
        slot.loading = asyncio.create_task(self._load(slot), name=f"loading {slot.name}")
        slot.loading.add_done_callback(lambda _: self._changes.tell())  # only then is the slot's state another
        return slot.loading

    async def load(self, slot: Slot) -> None:
        """Load the model if it isn't there. Raises what keeps it from being opened."""
        slot.forgive()
        with self._waiting(slot):
            while slot.state != "loaded":
                await self._attempt(slot)
                if slot.failure:
                    raise slot.failure

    async def unload(self, slot: Slot) -> None:
        """Close the model, once it has loaded and nobody uses it any more. Cancelled before that, it stays."""
        await self._changes.until(lambda: slot.state in {"loaded", "unloaded"})
        if slot.state == "loaded":
            await self._retire(slot, "asked")

    async def close_idle(self) -> float | None:
        """Close the models that nobody has used for too long; give the seconds until the next is due."""
        due_s: list[float] = []
        for slot in self._slots:
            idle_timeout_s = slot.found.wanted.idle_timeout_s
            if idle_timeout_s is None or slot.pin:
                continue
            left_s = slot.last_used + idle_timeout_s - self._clock() if slot.is_idle else idle_timeout_s
            if left_s <= 0:
                await self._retire(slot, "idle")
            due_s.append(left_s if left_s > 0 else idle_timeout_s)
        return min(due_s, default=None)

    async def close(self) -> None:
        """Load no more, and close every model."""
        self._is_closed = True
        loads = [slot.loading for slot in self._slots if slot.loading]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, *self._closing, return_exceptions=True)
        for slot in self._slots:
            if slot.model:
                await slot.model.lane.close()
                slot.emptied()
        self._changes.tell()

    async def _attempt(self, slot: Slot) -> None:
        """Wait until a load has ended, well or not.

        Not by awaiting the task: that would raise when somebody else cancels it, and cancel it when this caller goes.
        """
        await asyncio.wait({self.begin(slot)})

    @contextmanager
    def _waiting(self, slot: Slot) -> Iterator[None]:
        """Keep the model from being closed before this caller had its turn."""
        slot.waiting += 1
        try:
            yield
        finally:
            slot.waiting -= 1
            if slot.loading and not slot.waiting and not slot.is_opening:
                slot.loading.cancel()  # others would be closed for nobody; once it opens it may as well end
            self._changes.tell()

    async def _load(self, slot: Slot) -> None:
        """Wait for a turn and for room, and open the model; what comes of it is in the slot."""
        async with self._turn:
            await self._changes.until(lambda: slot.state != "unloading")
            if slot.model:  # whoever was to close it has thought better of it
                return
            try:
                await self._make_room(slot)
                slot.begin(self._clock())
                model = await self._opener.open(slot.found)
            except Exception as error:  # noqa: BLE001 — whatever an engine raises, who waits must hear of it
                self._note_failure(slot, error)
            except BaseException:
                slot.is_opening = False
                raise
            else:
                slot.filled(model, self._clock())  # no await since it was opened: a cancelled load can't lose it
            record = LoadRecord(model=slot.name, seconds=slot.load_s, failed=slot.failure is not None)
            self._observer.model_loaded(record)

    def _note_failure(self, slot: Slot, error: Exception) -> None:
        slot.failed(error, self._clock())
        if isinstance(error, SetupError):
            _log.error("can't load %s: %s", slot.name, error)
        else:
            _log.error("can't load %s", slot.name, exc_info=error)

    async def _make_room(self, slot: Slot) -> None:
        """Close what is least recently used until the model fits; wait where everything is in use."""
        patient_until = time.monotonic() + _PATIENCE_S
        while (budget := self._budget) is not None:
            left_s = patient_until - time.monotonic()
            chosen = choose_to_close(self._held(also_busy=left_s <= 0), slot.bytes, budget)
            if chosen == []:
                return
            if chosen:
                # One, and then another look: while it was closing others may have come into use, or been closed.
                await self._retire(next(other for other in self._slots if other.name == chosen[0]), "memory")
            else:
                await self._changes.wait(left_s if left_s > 0 else None)

    def _held(self, *, also_busy: bool) -> list[Held]:
        """List what counts. Who waits for a model that has just come gets it in any case."""
        return [
            Held(
                name=slot.name,
                bytes=slot.bytes,
                last_used=slot.last_used,
                can_close=not slot.pin
                and (slot.is_idle or (also_busy and slot.state == "loaded" and not slot.waiting)),
            )
            for slot in self._slots
            if slot.model
        ]

    async def _retire(self, slot: Slot, reason: CloseReason) -> None:
        """Give the model to nobody new, and close it once nobody has it. Cancelled before that, it stays."""
        slot.is_leaving = True
        try:
            await self._changes.until(lambda: not slot.leases)
        except asyncio.CancelledError:
            slot.is_leaving = False
            self._changes.tell()
            raise
        # In a task of its own, since what is half closed can't stay: whoever asked may go, and it ends all the same.
        closing = asyncio.create_task(self._close(slot, reason), name=f"closing {slot.name}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)

    async def _close(self, slot: Slot, reason: CloseReason) -> None:
        try:
            if slot.model:
                await slot.model.lane.close()
        except Exception:  # noqa: BLE001 — it must be out of the slot all the same
            _log.exception("%s could not be closed", slot.name)
        slot.emptied()
        self._changes.tell()
        self._observer.model_closed(slot.name, reason)
        _log.info("%s is closed (%s)", slot.name, reason)
