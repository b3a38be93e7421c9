"""A model's settings → an open model: its files, its Recipe, an engine, and a lane through which one forward went."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct

from nearfar.config import Device, ModelSettings, OnOverflow
from nearfar.engines import Choice, Engine, EngineInfo, EngineOrder, choose_engines
from nearfar.errors import ConfigError, EngineUnavailable
from nearfar.models.checkpoint import Checkpoint, Hub, find_checkpoint
from nearfar.models.prompts import names_of, prompt_for
from nearfar.models.recipe import Recipe, read_recipe
from nearfar.models.refusals import refuse_lost_end
from nearfar.models.tokens import Tokens
from nearfar.models.weights import refuse_damaged
from nearfar.serving.lane import Lane, LaneLimits
from nearfar.types import ModelInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.config import Settings
    from nearfar.serving.observe import Observer

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


class Opener:
    """Opens models, with the server's settings where a model has none of its own."""

    def __init__(self, settings: Settings, observer: Observer) -> None:
        self._settings = settings
        self._observer = observer
        self._threads_opening = 0

    @property
    def is_busy(self) -> bool:
        """Tell whether a thread is still busy opening a model, though nobody may wait for it any more."""
        return self._threads_opening > 0

    async def open(self, wanted: ModelSettings, refuse_taken: Callable[[str], None]) -> Model:
        """Open one model. ``refuse_taken`` is given every name it would go by, and may raise.

        Raises a SetupError when no engine can run it, or a name is taken.
        """
        started = time.perf_counter()
        settings = self._settings
        device, dtype = wanted.device or settings.device, wanted.dtype or settings.dtype
        checkpoint, recipe, tokens, choices = await asyncio.to_thread(self._busy, lambda: self._prepare(wanted, device))
        for name in (checkpoint.name, *wanted.aliases):
            refuse_taken(name)
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
            engine, reason = await self.open_engine(lane, choices, order)
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
        _log_open(model.info, reason, time.perf_counter() - started)
        return model

    async def open_engine(self, lane: Lane, choices: list[Choice], order: EngineOrder) -> tuple[Engine, str]:
        """Open the first engine that takes this checkpoint, and say why it is that one.

        Raises EngineUnavailable where the last of them refuses it too.
        """
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
        recipe = read_recipe(checkpoint.folder, wanted.max_tokens, checkpoint.name)
        refuse_damaged(checkpoint.folder, recipe)
        tokens = Tokens(checkpoint.folder, recipe)
        refuse_lost_end(checkpoint.folder, recipe, tokens)
        if wanted.prompts is not None:
            recipe = _with_prompts(recipe, wanted.name, wanted.prompts)
        if wanted.prompt is not None:
            recipe = _with_default(recipe, wanted)
        return checkpoint, recipe, tokens, choose_engines(wanted.engine or self._settings.engine, device)

    def _busy(self, call: Callable[[], _T]) -> _T:
        """Call, and let ``is_busy`` say so meanwhile: nothing can interrupt a thread."""
        self._threads_opening += 1
        try:
            return call()
        finally:
            self._threads_opening -= 1


def _with_prompts(recipe: Recipe, name: str, prompts: dict[str, str]) -> Recipe:
    """Let the operator's prompts take the place of all that the files or the family say."""
    if recipe.task == "score":
        raise ConfigError(f"models: {name} takes pairs as they are; take its prompts out of the settings")
    default = recipe.default_prompt if recipe.default_prompt in prompts else None
    return msgspec.structs.replace(recipe, prompts=prompts, default_prompt=default, prompts_source="settings")


def _with_default(recipe: Recipe, wanted: ModelSettings) -> Recipe:
    """Let the operator decide what is put before a text whose caller can't say what it is."""
    if wanted.prompt and prompt_for(recipe.prompts, wanted.prompt) is None:
        there = ", ".join(names_of(recipe.prompts))
        raise ConfigError(f"models: {wanted.name} has no prompt {wanted.prompt!r}; there are: {there}")
    return msgspec.structs.replace(recipe, default_prompt=wanted.prompt or None)


def _log_open(info: ModelInfo, reason: str, seconds: float) -> None:
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
        prompts_source=recipe.prompts_source,
    )
