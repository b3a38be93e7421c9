"""Fleet: all served models: which there are, whether they are ready, and the leases of requests.

The files of every model are read first, so that all names are known and none is mistaken for another's; then the models
with ``load = "start"`` are loaded one after another. All in the background: the server answers health checks at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from functools import partial

import msgspec

from nearfar.core.errors import ModelNotFound, ModelNotReady, ServingError, SettingsError, SetupError, WrongTask
from nearfar.core.settings import ModelSettings, Settings
from nearfar.core.types import ModelInfo, ModelState, QueueCapacity, Task
from nearfar.serving.registry.discovery import discover_model
from nearfar.serving.registry.loader import Loader
from nearfar.serving.registry.names import ModelNames, VendorNames
from nearfar.serving.registry.opening import Model, Opener
from nearfar.serving.registry.slot import ModelLimits, Slot
from nearfar.telemetry.events import Observer, QueueDepth

_log = logging.getLogger(__name__)

_LOADING = "the model is still loading"
_FAILED = "the model failed to load; the server's log says why"


class Fleet:
    """The served models. Without ``must_open`` a model that can't be loaded is logged, and the others are served."""

    def __init__(
        self,
        settings: Settings,
        vendor_names: VendorNames,
        observe: Observer,
        clock: Callable[[], float] = time.monotonic,
        *,
        must_open: bool = True,
    ) -> None:
        self._settings = settings
        self._must_open = must_open
        self._clock = clock
        self._slots: list[Slot] = []
        self._names = ModelNames(self._slots, vendor_names)
        self._opener = Opener(settings, observe)
        self._loader = Loader(self._slots, self._opener, observe, settings.memory_budget_bytes, clock)
        self._discovering: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._started = asyncio.Event()

    def start(self) -> None:
        """Start to read every model's files, and to load those with ``load = "start"``, in the settings' order."""
        self._discovering = asyncio.create_task(self._discover_all(), name="discovering models")
        self._opening = asyncio.create_task(self._load_all(self._discovering), name="loading models")
        self._unloading = asyncio.create_task(self._unload_idle(self._discovering), name="unloading idle models")
        self._started.set()

    async def opened(self) -> None:
        """Wait until every model with ``load = "start"`` was loaded. Raises why the first one can't be."""
        await self._started.wait()
        if self._opening:
            await asyncio.shield(self._opening)

    async def died(self) -> None:
        """Wait until a model has stopped on its own: only another process can serve it again."""
        await self._opener.lane_stopped.wait()

    async def close(self) -> None:
        """Stop loading, and unload every model."""
        tasks = [task for task in (self._discovering, self._opening, self._unloading) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loader.close()

    def models(self) -> list[Model]:
        """Return the loaded models, in the order of the settings."""
        return [slot.model for slot in self._slots if slot.model]

    def infos(self) -> list[ModelInfo]:
        """Return the description of every model, loaded or not, in the order of the settings."""
        return [slot.info for slot in self._slots]

    def states(self) -> list[ModelState]:
        """Return whether each model is loaded, in the same order."""
        return [slot.describe(self._clock()) for slot in self._slots]

    def depths(self) -> list[QueueDepth]:
        """Return the queue sizes of each loaded model."""
        return [
            msgspec.structs.replace(slot.model.lane.depth(), weight_bytes=slot.bytes)
            for slot in self._slots
            if slot.model
        ]

    def refuse_unready(self) -> None:
        """Raise ModelNotReady until the models with ``load = "start"`` are loaded, and while one is unhealthy."""
        if self._opening is None or not self._opening.done():
            raise ModelNotReady(_LOADING, retry_after_s=1)
        if self._opening.cancelled() or self._opening.exception():
            raise ModelNotReady(_FAILED)
        if not all(slot.model.lane.is_healthy() for slot in self._slots if slot.model and slot.state == "loaded"):
            raise ModelNotReady("a model has stopped, or doesn't respond; the server's log says why", retry_after_s=1)

    async def lease(self, name: str | None, tasks: tuple[Task, ...]) -> tuple[Slot, str | None]:
        """Lease the model that a request asks for, until ``end_lease``; load it where it isn't loaded.

        Returns the model's slot, and the prompt where its name in the request was ``MODEL:PROMPT``. ``tasks`` are tried
        in order: the first that the model supports decides which one it is. Raises ModelNotFound or WrongTask, and
        ModelNotReady where the model can't be loaded, or requests may not wait for it.
        """
        await self._wait_for_names()
        slot, prompt = self._names.resolve(name, tasks)
        if slot.state != "loaded" and self._settings.while_loading == "refuse":
            self._loader.start_loading(slot)
            raise ModelNotReady(f"{slot.name} is still loading", retry_after_s=slot.estimate_load_s(self._clock()))
        if slot.state != "loaded":
            await self._loader.wait_until_loaded(slot)
        slot.leases += 1
        return slot, prompt

    def end_lease(self, slot: Slot) -> None:
        """Record that a request doesn't use the model any more."""
        slot.leases -= 1
        slot.last_used = self._clock()
        if not slot.leases and self._loader.changed.waiters:
            self._loader.changed.notify_all()

    async def tasks_of(self, name: str | None) -> tuple[Task, ...]:
        """Return the tasks of the model with this name; of all models for None. Raises ModelNotFound."""
        await self._wait_for_names()
        return self._tasks_of(name)

    def known_tasks(self, name: str | None) -> tuple[Task, ...]:
        """Return the same without waiting; none where the model isn't known, or not yet."""
        try:
            return self._tasks_of(name or None)
        except ModelNotFound:
            return ()

    def _tasks_of(self, name: str | None) -> tuple[Task, ...]:
        if name is None:
            return tuple(task for slot in self._slots for task in slot.info.tasks)
        names = self._names
        return (names.find_own(name) or names.find_own(name.rpartition(":")[0]) or names.find_listed(name)).info.tasks

    def limits_of(self, name: str) -> ModelLimits:
        """Return the limits of the model with this name. Raises ModelNotFound."""
        return self._names.find_listed(name).limits(self._settings.queue_tokens)

    async def load(self, name: str) -> ModelState:
        """Load a model by name or alias, however soon after a failed load.

        Raises ModelNotFound, or ModelNotReady where it can't be loaded; the log has the reason.
        """
        slot = await self._find(name)
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
        slot = await self._find(name)
        await self._loader.unload(slot)
        return slot.describe(self._clock())

    def describe(self, name: str) -> ModelInfo:
        """Return the description of a model by name, alias or a vendor's name.

        Raises ModelNotFound or ModelNotReady.
        """
        self.refuse_unready()
        return self._names.find_listed(name).info

    def default(self, task: Task) -> ModelInfo | None:
        """Return the description of the model that answers requests without a name; None where no model can."""
        try:
            return self._names.find(None, task).info
        except WrongTask:
            return None

    def queue_capacity(self, name: str) -> QueueCapacity | None:
        """Return how full the queue of the model with this name is; None where it isn't loaded."""
        for slot in self._slots:
            if slot.name == name and slot.model:
                return slot.model.lane.admission.capacity()
        return None

    @property
    def is_opening(self) -> bool:
        """Return whether a thread still opens a model, although its task may have been cancelled."""
        return self._opener.is_busy

    async def _find(self, name: str) -> Slot:
        await self._wait_for_names()
        if slot := self._names.find_own(name):
            return slot
        raise ModelNotFound(name)

    async def _wait_for_names(self) -> None:
        """Wait until every model's names are known: before that, a request could get another model's answer."""
        discovering = self._discovering
        if discovering is None or (not discovering.done() and self._settings.while_loading == "refuse"):
            raise ModelNotReady(_LOADING, retry_after_s=1)
        if not discovering.done():
            await asyncio.wait({discovering})  # a caller that leaves doesn't cancel it
        if discovering.cancelled() or discovering.exception():
            raise ModelNotReady(_FAILED)

    async def _discover_all(self) -> None:
        try:
            for model in self._settings.models:
                try:
                    await self._discover(model)
                except SetupError as error:
                    if self._must_open or (model is self._settings.models[-1] and not self._slots):
                        raise
                    _log.error("model %s is unavailable: %s", model.name, error)
                    self._names.mark_unavailable(model)
            self._refuse_too_large()
        except SetupError as error:
            _log.error("can't start: %s", error)
            raise
        except MemoryError as error:
            reason = "there isn't enough memory; raise the limit (ulimit -v), or take a smaller model"
            _log.error("can't start: %s", reason)
            raise SetupError(reason) from error
        except Exception:
            _log.exception("can't start")
            raise

    async def _discover(self, model: ModelSettings) -> None:
        discovered = await self._opener.run_on_thread(partial(discover_model, model, self._settings))
        self._names.refuse_duplicates(discovered.info.name, *discovered.info.aliases)
        self._slots.append(Slot(discovered, self._clock()))

    def _refuse_too_large(self) -> None:
        """Raise SettingsError for a model that could never be loaded, whatever else is unloaded."""
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

    async def _load_all(self, discovering: asyncio.Task[None]) -> None:
        await asyncio.shield(discovering)
        for slot in self._slots:
            if slot.discovered.settings.load == "demand":
                continue
            try:
                await self._loader.load(slot)
            except Exception:  # the loader has logged it
                if self._must_open or all(other.failure for other in self._slots):
                    raise

    async def _unload_idle(self, discovering: asyncio.Task[None]) -> None:
        """Unload each model when it was idle for too long."""
        await asyncio.wait({discovering})
        due_s = 0.0
        while due_s < math.inf:
            await asyncio.sleep(due_s)
            due_s = await self._loader.unload_idle()
