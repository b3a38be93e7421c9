"""The served models: which there are, whether they are ready, and how a request holds one.

The files of every model are read first, so that all names are known and none is taken for another's; then the models
that the start is for open one after another. All in the background: a server answers for its health from its first
moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from nearfar.core.errors import ModelNotFound, ModelNotReady, ServingError, SettingsError, SetupError, WrongTask
from nearfar.serving.registry.discovery import find_model
from nearfar.serving.registry.loader import Loader
from nearfar.serving.registry.names import Names, VendorNames
from nearfar.serving.registry.opening import Model, Opener
from nearfar.serving.registry.slot import Limits, Slot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from nearfar.core.settings import ModelSettings, Settings
    from nearfar.core.types import ModelInfo, ModelState, QueueCapacity, Task
    from nearfar.telemetry.events import Observer, QueueDepth

_log = logging.getLogger(__name__)


class Lease(NamedTuple):
    """A model that a request holds, and the name of the prompt that came with the model's name."""

    model: Model
    prompt: str | None


class Fleet:
    """The served models.

    Without ``must_open`` a model that can't be opened is logged, and the others are served, if there is one.
    """

    def __init__(
        self,
        settings: Settings,
        vendor_names: VendorNames,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        *,
        must_open: bool = True,
    ) -> None:
        self._settings = settings
        self._must_open = must_open
        self._clock = clock
        self._slots: list[Slot] = []
        self._names = Names(self._slots, vendor_names)
        self._opener = Opener(settings, observer)
        self._loader = Loader(self._slots, self._opener, observer, settings.memory_budget_bytes, clock)
        self._finding: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._started = asyncio.Event()

    def start(self) -> None:
        """Begin to read every model's files, and to open the models that the start is for, in the settings' order."""
        self._finding = asyncio.create_task(self._find_all(), name="finding models")
        self._opening = asyncio.create_task(self._open_all(self._finding), name="opening models")
        self._sweeping = asyncio.create_task(self._sweep(self._finding), name="closing idle models")
        self._started.set()

    async def opened(self) -> None:
        """Wait until every model that the start is for was open. Raises what kept the first one that can't be."""
        await self._started.wait()
        if self._opening:
            await asyncio.shield(self._opening)

    async def died(self) -> None:
        """Wait until a model has stopped by itself: only another process can serve it again."""
        await self._opener.died.wait()

    async def close(self) -> None:
        """Stop opening, and close every model."""
        tasks = [task for task in (self._finding, self._opening, self._sweeping) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loader.close()

    def models(self) -> list[Model]:
        """List the models that are open now, in the order of the settings."""
        return [slot.model for slot in self._slots if slot.model]

    def infos(self) -> list[ModelInfo]:
        """Tell about every model, open or not, in the order of the settings."""
        return [slot.info for slot in self._slots]

    def states(self) -> list[ModelState]:
        """Tell of every model whether it is in memory, in the same order."""
        return [slot.describe(self._clock()) for slot in self._slots]

    def depths(self) -> list[QueueDepth]:
        """Give the queue of each model that is open."""
        return [
            msgspec.structs.replace(slot.model.lane.depth(), weight_bytes=slot.bytes)
            for slot in self._slots
            if slot.model
        ]

    def refuse_unready(self) -> None:
        """Raise ModelNotReady until every model that the start is for has opened, and where one gives no answers."""
        if self._opening is None or not self._opening.done():
            raise ModelNotReady("the model is still loading", retry_after_s=1)
        if self._opening.cancelled() or self._opening.exception():
            raise ModelNotReady("the model failed to load; the server's log says why")
        if not all(slot.model.lane.is_well() for slot in self._slots if slot.model and slot.state == "loaded"):
            raise ModelNotReady("a model has stopped, or gives no answers; the server's log says why", retry_after_s=1)

    @contextlib.asynccontextmanager
    async def lease(self, name: str | None, tasks: Sequence[Task]) -> AsyncIterator[Lease]:
        """Hold the model that a request means for as long as the request needs it; load it where it isn't there.

        ``tasks`` are tried in order: the first that the model supports decides which one it is.
        Raises ModelNotFound or WrongTask, and ModelNotReady where the model can't be loaded, or may not be waited for.
        """
        await self._names_known()
        slot, prompt = self._resolve(name, tasks)
        if self._settings.while_loading == "refuse" and slot.state != "loaded":
            self._loader.begin(slot)
            raise ModelNotReady(f"{slot.name} is still loading", retry_after_s=slot.load_takes_s(self._clock()))
        model = await self._loader.hold(slot)
        try:
            yield Lease(model, prompt)
        finally:
            self._loader.release(slot)

    def _resolve(self, name: str | None, tasks: Sequence[Task]) -> tuple[Slot, str | None]:
        *earlier, last = tasks
        for task in earlier:
            with contextlib.suppress(WrongTask):
                return self._names.meant(name, task)
        return self._names.meant(name, last)

    async def tasks_of(self, name: str | None) -> tuple[Task, ...]:
        """List what the model that goes by this name can do; None for what any of them can.

        Waits for the names to be known. Raises ModelNotFound.
        """
        await self._names_known()
        if name is None:
            return tuple(task for slot in self._slots for task in slot.info.tasks)
        names = self._names
        return (names.own(name) or names.own(name.rpartition(":")[0]) or names.listed(name)).info.tasks

    def limits_of(self, name: str) -> Limits:
        """Tell how much the model of this name takes. Raises ModelNotFound."""
        return self._names.listed(name).limits(self._settings)

    async def load(self, name: str) -> ModelState:
        """Load the model of this name or alias, however soon after a load that failed.

        Raises ModelNotFound, or ModelNotReady where it can't be loaded; the log says why.
        """
        slot = await self._ordered(name)
        try:
            await self._loader.load(slot)
        except ServingError:
            raise
        except Exception as error:
            raise ModelNotReady(f"{slot.name} failed to load; the server's log says why") from error
        return slot.describe(self._clock())

    async def unload(self, name: str) -> ModelState:
        """Unload a model by name or alias once no request uses it; the next request loads it again.

        Raises ModelNotFound.
        """
        slot = await self._ordered(name)
        await self._loader.unload(slot)
        return slot.describe(self._clock())

    def describe(self, name: str) -> ModelInfo:
        """Tell about the model of this name, alias or vendor's name. Raises ModelNotFound or ModelNotReady."""
        self.refuse_unready()
        return self._names.listed(name).info

    def default(self, task: Task) -> ModelInfo | None:
        """Tell about the model that answers a request for this which names none; None where no model can."""
        try:
            return self._names.find(None, task).info
        except WrongTask:
            return None

    def queue_capacity(self, name: str) -> QueueCapacity | None:
        """Tell how full the queue is of the model with this name; None where it isn't in memory."""
        slot = self._names.own(name)
        return slot.model.lane.admission.capacity() if slot and slot.model else None

    @property
    def is_opening(self) -> bool:
        """Tell whether a thread is still busy opening a model, though nobody may wait for it any more."""
        return self._opener.is_busy

    async def _ordered(self, name: str) -> Slot:
        await self._names_known()
        if slot := self._names.own(name):
            return slot
        raise ModelNotFound(name)

    async def _names_known(self) -> None:
        """Wait until every model's names are known: before that, any request could be taken for another's."""
        if self._finding is None or (not self._finding.done() and self._settings.while_loading == "refuse"):
            raise ModelNotReady("the model is still loading", retry_after_s=1)
        if not self._finding.done():
            await asyncio.wait({self._finding})  # who leaves meanwhile doesn't cancel it
        if self._finding.cancelled() or self._finding.exception():
            raise ModelNotReady("the model failed to load; the server's log says why")

    async def _find_all(self) -> None:
        try:
            for wanted in self._settings.models:
                try:
                    await self._find_one(wanted)
                except SetupError as error:
                    if self._must_open or (wanted is self._settings.models[-1] and not self._slots):
                        raise
                    _log.error("%s can't be served any more: %s", wanted.name, error)
                    self._names.lose(wanted)
            self._refuse_too_large()
        except SetupError as error:
            _log.error("can't start: %s", error)
            raise
        except Exception:
            _log.exception("can't start")
            raise

    async def _find_one(self, wanted: ModelSettings) -> None:
        found = await self._opener.aside(partial(find_model, wanted, self._settings))
        self._names.refuse_taken(found.info.name, *found.info.aliases)
        self._slots.append(Slot(found, self._clock()))

    def _refuse_too_large(self) -> None:
        """Raise SettingsError for a model that could never be loaded, whatever else is closed."""
        budget = self._settings.memory_budget_bytes
        if budget is None:
            return
        pinned = {slot for slot in self._slots if slot.pin}
        for slot in self._slots:
            needed = sum(other.bytes for other in {*pinned, slot})
            if needed > budget:
                beside = " beside the pinned models" if pinned - {slot} else ""
                raise SettingsError(
                    f"memory_budget: {slot.name} needs {needed:,} bytes{beside} in {slot.info.dtype} precision, and "
                    f"the budget is {budget:,}; raise it, or choose a smaller dtype"
                )

    async def _open_all(self, finding: asyncio.Task[None]) -> None:
        await asyncio.shield(finding)
        for slot in self._slots:
            if slot.found.wanted.load == "demand":
                continue
            try:
                await self._loader.load(slot)
            except Exception:  # the loader has logged it
                if self._must_open or all(other.failure for other in self._slots):
                    raise

    async def _sweep(self, finding: asyncio.Task[None]) -> None:
        """Close the models that nobody uses, each when it is due."""
        await asyncio.wait({finding})
        due_s: float | None = 0.0
        while due_s is not None:
            await asyncio.sleep(due_s)
            due_s = await self._loader.close_idle()
