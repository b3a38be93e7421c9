"""Opening a model: from its files to its tokenizer and a running lane."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar, get_args

import msgspec
from msgspec import Struct

from nearfar.core.errors import EngineError, EngineUnavailable
from nearfar.core.settings import Dtype, OnOverflow, Settings
from nearfar.core.types import ModelInfo
from nearfar.engines.base import Engine, OpenRequest
from nearfar.engines.common.batch_invariance import ensure_batch_invariance
from nearfar.engines.common.cache_folder import trusted_cache
from nearfar.engines.selection import EngineChoice, open_with, unavailable
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.sample_texts import token_budget
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.queue.admission import QueueLimits
from nearfar.serving.queue.lane import Lane, LaneSettings, open_lane
from nearfar.serving.registry.description import default_method, describe_loaded
from nearfar.serving.registry.discovery import DiscoveredModel
from nearfar.serving.registry.warmup import rows_of_lengths, warm_up
from nearfar.serving.verification.verifier import Verifier, VerifyRequest
from nearfar.telemetry.events import Observer

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Model(Struct, frozen=True, kw_only=True):
    """One loaded model: its description, recipe, tokenizer and lane."""

    info: ModelInfo
    recipe: Recipe
    encoder: TextEncoder
    lane: Lane
    on_overflow: OnOverflow


class Opener:
    """Opens models. ``lane_stopped`` is set when a lane stops on its own: only another process can serve it again."""

    def __init__(self, settings: Settings, observe: Observer) -> None:
        self._settings = settings
        self._cache_dir = trusted_cache(settings.cache_path)
        self._observe = observe
        self._busy_threads = 0
        self.lane_stopped = asyncio.Event()

    @property
    def is_busy(self) -> bool:
        """Return whether a thread still opens a model, although its task may have been cancelled."""
        return self._busy_threads > 0

    async def run_on_thread(self, call: Callable[[], _T]) -> _T:
        """Run a slow part of opening a model on a thread."""
        return await asyncio.to_thread(self._count_busy, call)

    async def open(self, discovered: DiscoveredModel) -> Model:
        """Open a model with the first engine that supports it. Raises a SetupError when none does."""
        started = time.perf_counter()
        checkpoint, recipe, own = discovered.checkpoint, discovered.recipe, discovered.settings
        encoder = await self.run_on_thread(lambda: TextEncoder(checkpoint.folder / recipe.subfolder, recipe))
        request = OpenRequest(
            folder=checkpoint.folder / recipe.subfolder,
            recipe=recipe,
            device=own.device,
            dtype=own.dtype,
            probes=encoder.sample_rows(token_budget(discovered.weights.parameters)),
            revision=checkpoint.revision,
            cache_dir=self._cache_dir,
            threads=self._settings.threads,
            single_row_models=self._settings.single_row_models,
        )
        verifier = await self.run_on_thread(lambda: self._verifier(discovered, encoder))
        try:
            lane, reason = await self.open_lane(checkpoint.name, discovered.choices, request, verifier.check)
        finally:
            verifier.close()
        info = describe_loaded(discovered.info, lane.engine_info, encoder.tokenizer.source, verifier.result)
        _log_loaded(info, reason, time.perf_counter() - started)
        return Model(info=info, recipe=recipe, encoder=encoder, lane=lane, on_overflow=own.on_overflow)

    def _verifier(self, discovered: DiscoveredModel, encoder: TextEncoder) -> Verifier:
        own = discovered.settings
        request = VerifyRequest(
            name=discovered.checkpoint.name,
            folder=discovered.checkpoint.folder,
            recipe=discovered.recipe,
            parameters=discovered.weights.parameters,
            enabled=own.verify,
            max_tokens=own.max_tokens,
            is_builtin=discovered.checkpoint.source == "builtin",
            first_engine=discovered.choices[0].name,
            cache_dir=self._cache_dir,
        )
        return Verifier(request, encoder)

    async def open_lane(
        self,
        name: str,
        choices: list[EngineChoice],
        request: OpenRequest,
        check: Callable[[Engine], object] = bool,
    ) -> tuple[Lane, str]:
        """Open a lane with the first engine that supports the checkpoint, and return why it is that one.

        Call ``check`` with the engine on its thread; it may raise what opening may. Raises EngineUnavailable where the
        last of them doesn't support it either.
        """
        settings = LaneSettings(
            model=name,
            method=default_method(request.recipe),
            batch_tokens=self._settings.batch_tokens,
            queue=QueueLimits(tokens=self._settings.queue_tokens, requests=self._settings.queue_requests),
            forward_timeout_s=self._settings.forward_timeout_s,
        )
        *better, last = choices
        refusals = ""
        for choice in better:
            try:
                return await self._open_lane(settings, choice, request, check), choice.reason
            except EngineUnavailable as error:
                _log.warning("model %s: engine %s is unavailable: %s", name, choice.name, error)
                refusals += f"not {choice.name}: {error}; "
        return await self._open_lane(settings, last, request, check), refusals + last.reason

    async def _open_lane(
        self, settings: LaneSettings, choice: EngineChoice, request: OpenRequest, check: Callable[[Engine], object]
    ) -> Lane:
        longest = max(request.probes, key=lambda row: len(row.ids))
        tokens_per_s = 0.0

        def open_engine() -> Engine:
            nonlocal tokens_per_s
            engine = open_with(choice, request)
            try:
                engine = ensure_batch_invariance(engine, request, settings.method)
                check(engine)
            except BaseException:
                engine.close()
                raise
            tokens_per_s = warm_up(engine, settings.method, rows_of_lengths(longest, request.recipe.max_tokens))
            return engine

        opening = partial(self._count_busy, open_engine)
        try:
            lane = await open_lane(settings, opening, request.probes[0], self._observe, self.lane_stopped)
        except EngineError as error:  # its first forward failed
            raise unavailable(choice, request, error.__cause__ or error, "fails on a first text") from error
        lane.throughput.tokens_per_s = tokens_per_s
        return lane

    def _count_busy(self, call: Callable[[], _T]) -> _T:
        """Call, and count the thread as busy meanwhile: nothing can interrupt it."""
        self._busy_threads += 1
        try:
            return call()
        finally:
            self._busy_threads -= 1


def as_loaded(discovered: DiscoveredModel, info: ModelInfo) -> DiscoveredModel:
    """Pin the engine and dtype of the first load, so that later loads repeat them.

    The automatic choices are measured, and a second measurement may differ: the same text would then get another vector
    than before the model was unloaded.
    """
    settings = discovered.settings
    if info.dtype in get_args(Dtype) and not discovered.weights.quantized:
        settings = msgspec.structs.replace(settings, dtype=info.dtype)
    choices = [choice for choice in discovered.choices if choice.name == info.engine] or discovered.choices
    return msgspec.structs.replace(discovered, settings=settings, choices=choices, info=info)


def _log_loaded(info: ModelInfo, reason: str, seconds: float) -> None:
    _log.info(
        "model %s loaded in %.1f s: engine %s (%s), device %s, dtype %s (%s), tasks %s, pooling %s (%s), "
        "%d dimensions, %d tokens, batches of %s, %s",
        info.name,
        seconds,
        info.engine,
        reason,
        info.device,
        info.dtype,
        info.dtype_reason,
        ", ".join(info.tasks),
        info.pooling or "none",
        info.pooling_source or "not needed",
        info.dim,
        info.max_tokens,
        info.batching,
        info.verified,
    )
