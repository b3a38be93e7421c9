"""A model's files → an open model: its tokenizer, an engine, and a lane through which one forward went."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, TypeVar, get_args

import msgspec
from msgspec import Struct

from nearfar.core.errors import EngineUnavailable
from nearfar.core.settings import Dtype, OnOverflow
from nearfar.core.types import ModelInfo
from nearfar.engines.base import Engine, OpenRequest
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.queue.admission import QueueLimits
from nearfar.serving.queue.lane import Lane, LaneLimits
from nearfar.serving.registry.description import describe, usual_call
from nearfar.serving.registry.discovery import UNKNOWN, Found
from nearfar.serving.registry.warmup import rows_of_lengths, warmed

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.core.settings import Settings
    from nearfar.engines.selection import EngineChoice
    from nearfar.telemetry.events import Observer

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Model(Struct, frozen=True, kw_only=True):
    """One open model: its tokenizer, its recipe, its lane, and all that is true of it."""

    info: ModelInfo
    recipe: Recipe
    tokens: TextEncoder
    lane: Lane
    on_overflow: OnOverflow


class Opener:
    """Opens models, with the server's settings where a model has none of its own."""

    def __init__(self, settings: Settings, observer: Observer) -> None:
        self._settings = settings
        self._observer = observer
        self._threads_opening = 0
        self.died = asyncio.Event()  # a lane has stopped by itself

    @property
    def is_busy(self) -> bool:
        """Tell whether a thread is still busy opening a model, though nobody may wait for it any more."""
        return self._threads_opening > 0

    async def aside(self, call: Callable[[], _T]) -> _T:
        """Call on a thread, for what belongs to opening a model and takes a while."""
        return await asyncio.to_thread(self._busy, call)

    async def open(self, found: Found) -> Model:
        """Open one model. Raises a SetupError when no engine can run it."""
        started = time.perf_counter()
        settings, checkpoint, recipe = self._settings, found.checkpoint, found.recipe
        tokens = await self.aside(lambda: TextEncoder(checkpoint.folder, recipe))
        request = OpenRequest(
            folder=checkpoint.folder,
            recipe=recipe,
            device=found.wanted.device or "auto",
            dtype=found.wanted.dtype or "auto",
            probes=tokens.sample_rows(),
            revision=checkpoint.revision,
            cache_dir=settings.cache_path,
            threads=settings.threads,
        )
        limits = LaneLimits(
            batch_tokens=settings.batch_tokens,
            queue=QueueLimits(tokens=settings.queue_tokens, requests=settings.queue_requests),
            forward_s=settings.forward_timeout_s,
        )
        lane = Lane(checkpoint.name, usual_call(recipe), limits, self._observer, self.died)
        try:
            engine, reason = await self.open_engine(lane, found.choices, request)
        except BaseException:
            await lane.close()
            raise
        model = Model(
            info=describe(checkpoint, recipe, engine.info, found.wanted, found.weights),
            recipe=recipe,
            tokens=tokens,
            lane=lane,
            on_overflow=found.wanted.on_overflow or "truncate",
        )
        _log_open(model.info, reason, time.perf_counter() - started)
        return model

    async def open_engine(self, lane: Lane, choices: list[EngineChoice], request: OpenRequest) -> tuple[Engine, str]:
        """Open the first engine that takes this checkpoint, and say why it is that one.

        Raises EngineUnavailable where the last of them refuses it too.
        """
        *better, last = choices
        refusals = ""
        for choice in better:
            try:
                return await self._open_one(lane, choice, request), choice.reason
            except EngineUnavailable as error:
                _log.warning("not engine %s: %s", choice.name, error)
                refusals += f"not {choice.name}: {error}; "
        return await self._open_one(lane, last, request), refusals + last.reason

    async def _open_one(self, lane: Lane, choice: EngineChoice, request: OpenRequest) -> Engine:
        call, longest = usual_call(request.recipe), max(request.probes, key=lambda row: len(row.ids))

        def open_warm() -> Engine:
            return warmed(choice.kind.open(request), call, rows_of_lengths(longest, request.recipe.max_tokens))

        return await lane.open(lambda: self._busy(open_warm), request.probes[0])

    def _busy(self, call: Callable[[], _T]) -> _T:
        """Call, and let ``is_busy`` say so meanwhile: nothing can interrupt a thread."""
        self._threads_opening += 1
        try:
            return call()
        finally:
            self._threads_opening -= 1


def as_opened(found: Found, model: Model) -> Found:
    """Settle what the first opening chose, so that the model comes back with the same engine and precision.

    The automatic choices are measured, and a second measurement may choose otherwise: the same text would then get
    another vector than it had before the model was closed.
    """
    info, first = model.info, found.info
    settled = found.wanted
    if info.dtype in get_args(Dtype) and not found.weights.quantized:
        settled = msgspec.structs.replace(settled, dtype=info.dtype)
    return msgspec.structs.replace(
        found,
        wanted=settled,
        choices=[choice for choice in found.choices if choice.name == info.engine] or found.choices,
        info=msgspec.structs.replace(
            info,
            created=first.created,
            dtype_reason=info.dtype_reason if first.dtype_reason == UNKNOWN else first.dtype_reason,
        ),
    )


def _log_open(info: ModelInfo, reason: str, seconds: float) -> None:
    _log.info(
        "%s is ready in %.1f s: engine %s (%s), %s, %s (%s), for %s, pooling %s (%s), %d dimensions, %d tokens",
        info.name,
        seconds,
        info.engine,
        reason,
        info.device,
        info.dtype,
        info.dtype_reason,
        ", ".join(info.tasks),
        info.pooling or "none",
        info.pooling_source or "none needed",
        info.dim,
        info.max_tokens,
    )
