"""Names → models: which are served, under what names, and whether they are ready.

Opening a model means: find its files, read its Recipe, choose an engine, load it on the lane's thread and
let one forward succeed. Models open one after another in the background, so that a server answers for its
health from its first moment.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from nearfar.config import Device, ModelSettings, OnOverflow
from nearfar.engines import Choice, Engine, EngineInfo, EngineOrder, choose_engines
from nearfar.errors import ConfigError, EngineUnavailable, NotReady, SetupError, UnknownModel, WrongTask
from nearfar.models.checkpoint import Checkpoint, Hub, find_checkpoint
from nearfar.models.recipe import Recipe, read_recipe
from nearfar.models.tokens import Tokens
from nearfar.serving.lane import Lane, LaneLimits
from nearfar.types import ModelInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nearfar.config import Settings
    from nearfar.serving.observe import Observer, QueueDepth
    from nearfar.types import Task

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

SCORE_OF_VECTORS = "(1 + cosine) / 2 of the query's and the document's vectors"
SCORE_OF_PAIRS = "sigmoid of the logit the model gives the pair"


class Model(Struct, frozen=True, kw_only=True):
    """One open model: its tokenizer, its recipe, its lane, and all that is true of it.

    ``asked_as`` is the name in the settings; it is answered to, but not listed, as it may be a path.
    """

    info: ModelInfo
    asked_as: str
    recipe: Recipe
    tokens: Tokens
    lane: Lane
    on_overflow: OnOverflow

    def goes_by(self, name: str) -> bool:
        """Tell whether a request that says ``name`` means this model."""
        return name in {self.info.name, self.asked_as, *self.info.aliases}


class Fleet:
    """The served models. ``vendor_names`` are names that mean the default model of their task."""

    def __init__(self, settings: Settings, vendor_names: Mapping[str, Task], observer: Observer) -> None:
        self._settings = settings
        self._vendor_names = vendor_names
        self._observer = observer
        self._models: list[Model] = []
        self._opening: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._threads_opening = 0

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
        made_for = "score" if task == "rank" else "embed"
        able = [model for model in self._models if task in model.info.tasks]
        if not able:
            raise WrongTask(name or "the served model", task)
        return next((model for model in able if model.recipe.task == made_for), able[0])

    async def _open_all(self) -> None:
        try:
            for wanted in self._settings.models:
                started = time.perf_counter()
                model, reason = await self._open(wanted)
                self._log_open(model, reason, time.perf_counter() - started)
        except SetupError as error:
            _log.error("can't start: %s", error)
            raise
        except Exception:
            _log.exception("can't start")
            raise

    async def _open(self, wanted: ModelSettings) -> tuple[Model, str]:
        settings = self._settings
        device, dtype = wanted.device or settings.device, wanted.dtype or settings.dtype
        checkpoint, recipe, tokens, choices = await asyncio.to_thread(self._busy, lambda: self._prepare(wanted, device))
        self._refuse_taken(checkpoint.name, wanted.aliases)
        order = EngineOrder(
            folder=checkpoint.folder,
            recipe=recipe,
            device=device,
            dtype=dtype,
            probes=tokens.probes(),
            revision=checkpoint.revision,
            cache=settings.cache_folder,
            threads=settings.threads,
        )
        limits = LaneLimits(batch_tokens=settings.batch_tokens, queue_tokens=settings.queue_tokens)
        lane = Lane(checkpoint.name, recipe.task, limits, self._observer)
        try:
            engine, reason = await self._open_engine(lane, choices, order)
        except BaseException:
            await lane.close()
            raise
        model = Model(
            info=_describe(checkpoint, recipe, engine.info, wanted.aliases),
            asked_as=wanted.name,
            recipe=recipe,
            tokens=tokens,
            lane=lane,
            on_overflow=wanted.on_overflow or settings.on_overflow,
        )
        self._models.append(model)
        return model, reason

    async def _open_engine(self, lane: Lane, choices: list[Choice], order: EngineOrder) -> tuple[Engine, str]:
        """Open the first engine that takes this checkpoint; say why it is that one."""
        *better, last = choices
        refusals = ""
        for choice in better:
            try:
                return await self._open_one(lane, choice, order), choice.reason
            except EngineUnavailable as error:
                _log.warning("not engine %s: %s", choice.name, error)
                refusals += f"not {choice.name}: {error}; "
        return await self._open_one(lane, last, order), refusals + last.reason

    async def _open_one(self, lane: Lane, choice: Choice, order: EngineOrder) -> Engine:
        return await lane.open(lambda: self._busy(lambda: choice.kind.open(order)), order.probes[0])

    def _prepare(self, wanted: ModelSettings, device: Device) -> tuple[Checkpoint, Recipe, Tokens, list[Choice]]:
        """Find the files, read them, and see which engines there are; on a thread."""
        hub = Hub(endpoint=self._settings.hub_endpoint, offline=self._settings.offline)
        checkpoint = find_checkpoint(wanted.name, hub)
        recipe = read_recipe(checkpoint.folder, wanted.max_tokens)
        tokens = Tokens(checkpoint.folder, recipe)
        return checkpoint, recipe, tokens, choose_engines(wanted.engine or self._settings.engine, device)

    def _busy(self, call: Callable[[], _T]) -> _T:
        """Call, and let ``is_opening`` say so meanwhile: nothing can interrupt a thread."""
        self._threads_opening += 1
        try:
            return call()
        finally:
            self._threads_opening -= 1

    @property
    def is_opening(self) -> bool:
        """Tell whether a thread is still busy opening a model, though nobody may wait for it any more."""
        return self._threads_opening > 0

    def _refuse_taken(self, name: str, aliases: tuple[str, ...]) -> None:
        for taken in (name, *aliases):
            if self.named(taken):
                raise ConfigError(f"models: two of them are called {taken!r}; rename a folder or an alias")

    def _log_open(self, model: Model, reason: str, seconds: float) -> None:
        info = model.info
        _log.info(
            "%s is ready in %.1f s: engine %s (%s), %s, %s (%s), pooling %s (%s), %d dimensions, %d tokens",
            info.name,
            seconds,
            info.engine,
            reason,
            info.device,
            info.dtype,
            info.dtype_reason,
            info.pooling or "none",
            info.pooling_source or "cross-encoder",
            info.dim,
            info.max_tokens,
        )


def _describe(checkpoint: Checkpoint, recipe: Recipe, engine: EngineInfo, aliases: tuple[str, ...]) -> ModelInfo:
    embeds = recipe.task == "embed"
    return ModelInfo(
        name=checkpoint.name,
        aliases=aliases,
        tasks=("embed", "rank") if embeds else ("rank",),
        source=checkpoint.source,
        revision=checkpoint.revision,
        architecture=recipe.architecture,
        engine=engine.name,
        device=engine.device,
        dtype=engine.dtype,
        dtype_reason=engine.dtype_reason,
        dim=recipe.dim,
        max_tokens=recipe.max_tokens,
        pooling="+".join(recipe.pooling),
        pooling_source=recipe.pooling_source,
        normalized=recipe.normalize,
        prompts=recipe.prompts,
        default_prompt=recipe.default_prompt,
        score=SCORE_OF_VECTORS if embeds else SCORE_OF_PAIRS,
        created=int(time.time()),
    )
