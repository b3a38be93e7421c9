"""Names → models: which are served, under what names, and whether they are ready.

Models open one after another in the background, so that a server answers for its health from its first moment.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from nearfar.errors import ConfigError, NotReady, SetupError, UnknownModel, WrongTask
from nearfar.models.prompts import prompt_for
from nearfar.serving.opening import Model, Opener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from nearfar.config import Settings
    from nearfar.serving.observe import Observer, QueueDepth
    from nearfar.types import ModelInfo, Task

_log = logging.getLogger(__name__)


class Lease(NamedTuple):
    """A model that a request holds, and the name of the prompt that came with the model's name."""

    model: Model
    prompt: str | None


class Fleet:
    """The served models. ``vendor_names`` are names that mean the default model of their task."""

    def __init__(self, settings: Settings, vendor_names: Mapping[str, Task], observer: Observer) -> None:
        self._wanted = settings.models
        self._opener = Opener(settings, observer)
        self._vendor_names = vendor_names
        self._models: list[Model] = []
        self._opening: asyncio.Task[None] | None = None
        self._started = asyncio.Event()

    def start(self) -> None:
        """Begin to open every model, in the order of the settings."""
        self._opening = asyncio.create_task(self._open_all(), name="opening models")
        self._started.set()

    async def opened(self) -> None:
        """Wait until every model is open. Raises what kept the first one that can't be."""
        await self._started.wait()
        if self._opening:
            await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Stop opening, and close every model."""
        if self._opening:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        for model in self._models:
            await model.lane.close()

    def models(self) -> list[Model]:
        """List the open models, in the order of the settings."""
        return list(self._models)

    def depths(self) -> list[QueueDepth]:
        """Give each model's queue."""
        return [model.lane.depth() for model in self._models]

    def refuse_unready(self) -> None:
        """Raise NotReady unless every model has opened and every lane is alive."""
        if self._opening is None or not self._opening.done():
            raise NotReady("the model is still loading", retry_after_s=1)
        if self._opening.cancelled() or self._opening.exception():
            raise NotReady("the model failed to load; the server's log says why")
        if not all(model.lane.is_open for model in self._models):
            raise NotReady("a model has stopped; the server's log says why")

    def find(self, name: str | None, task: Task) -> Model:
        """Find the model a request means: by name, by alias, or the default of the task.

        Raises UnknownModel, WrongTask, or NotReady while models still open.
        """
        if name is not None and (found := self.named(name)):
            if task not in found.info.tasks:
                raise WrongTask(name, task)
            return found
        self.refuse_unready()
        if name is not None and name not in self._vendor_names:
            raise UnknownModel(name)
        if name is not None and self._vendor_names[name] != task:
            raise WrongTask(name, task)
        return self._default(name, task)

    @asynccontextmanager
    async def lease(self, name: str | None, task: Task) -> AsyncIterator[Lease]:
        """Hold the model that a request means for as long as the request needs it. Raises as ``find`` does.

        Where the name is nobody's and ends in a colon and the name of a prompt, that prompt comes with the model.
        """
        try:
            found = Lease(self.find(name, task), None)
        except UnknownModel:
            start, _, prompt = (name or "").rpartition(":")
            if not start:
                raise
            found = Lease(self.find(start, task), prompt)
            if prompt_for(found.model.recipe.prompts, prompt) is None:
                raise
        yield found

    def describe(self, name: str) -> ModelInfo:
        """Tell about the model of this name, alias or vendor's name. Raises UnknownModel or NotReady."""
        self.refuse_unready()
        if found := self.named(name):
            return found.info
        if name not in self._vendor_names:
            raise UnknownModel(name, listing=True)
        return self._default(name, self._vendor_names[name]).info

    def named(self, name: str) -> Model | None:
        """Find a model by its name or an alias; a vendor's name is nobody's own."""
        return next((model for model in self._models if model.goes_by(name)), None)

    def _default(self, name: str | None, task: Task) -> Model:
        """Take the first model made for the task, else the first that can do it."""
        made_for = "score" if task in {"rank", "classify"} else "embed"
        able = [model for model in self._models if task in model.info.tasks]
        if not able:
            raise WrongTask(name or "the served model", task)
        return next((model for model in able if model.recipe.task == made_for), able[0])

    async def _open_all(self) -> None:
        try:
            for wanted in self._wanted:
                self._models.append(await self._opener.open(wanted, self._refuse_taken))
        except SetupError as error:
            _log.error("can't start: %s", error)
            raise
        except Exception:
            _log.exception("can't start")
            raise

    @property
    def is_opening(self) -> bool:
        """Tell whether a thread is still busy opening a model, though nobody may wait for it any more."""
        return self._opener.is_busy

    def _refuse_taken(self, name: str) -> None:
        if self.named(name):
            raise ConfigError(f"models: two of them are called {name!r}; rename a folder or an alias")
