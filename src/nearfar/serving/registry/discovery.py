"""A model's settings → what its files say: all that is known of it before an engine opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from nearfar.core.errors import SettingsError
from nearfar.core.settings import ModelSettings
from nearfar.core.types import ModelInfo
from nearfar.engines.base import EngineInfo
from nearfar.engines.selection import EngineChoice, choose_engines, prefer_prefix_sharing
from nearfar.models.files.safetensors import WeightSizes, read_weight_sizes
from nearfar.models.hub.checkpoint import Checkpoint, find_checkpoint
from nearfar.models.hub.download import Hub
from nearfar.models.reading.reader import read_recipe
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.prompts import find_prompt, prompt_names
from nearfar.serving.registry.description import describe

if TYPE_CHECKING:
    from nearfar.core.settings import Settings

UNKNOWN = "not loaded yet"


class Found(Struct, frozen=True, kw_only=True):
    """One model whose files were read, but for the weights: all that is known before an engine opens it.

    ``wanted`` has the server's settings where the model had none of its own.
    """

    wanted: ModelSettings
    checkpoint: Checkpoint
    recipe: Recipe
    choices: list[EngineChoice]
    weights: WeightSizes
    info: ModelInfo


def find_model(wanted: ModelSettings, settings: Settings) -> Found:
    """Find the model's files, read them, and see which engines there are. Raises a SetupError where that fails."""
    inherited = {
        name: getattr(wanted, name) or getattr(settings, name)
        for name in ("engine", "device", "dtype", "on_overflow", "load", "idle_timeout_s")
    }
    wanted = msgspec.structs.replace(wanted, **inherited)
    hub = Hub(endpoint=settings.hub_endpoint, offline=settings.offline)
    checkpoint = find_checkpoint(wanted.name, hub)
    recipe = read_recipe(checkpoint.folder, wanted.max_tokens, checkpoint.name, wanted.task)
    if wanted.prompts is not None:
        recipe = _with_prompts(recipe, wanted.name, wanted.prompts)
    if wanted.prompt is not None:
        recipe = _with_default(recipe, wanted)
    engine, device = wanted.engine or "auto", wanted.device or "auto"
    unopened = EngineInfo(
        name=engine,
        device=device,
        dtype=wanted.dtype or "auto",
        dim=recipe.dim,
        batch_tokens=0,
        dtype_reason=UNKNOWN,
    )
    choices = choose_engines(engine, device)
    weights = read_weight_sizes(checkpoint.folder, recipe)
    info = describe(checkpoint, recipe, unopened, wanted, weights)
    if wanted.task and wanted.task not in info.tasks:
        raise SettingsError(f"models: {wanted.name} can't {wanted.task}, only {', '.join(info.tasks)}")
    return Found(
        wanted=wanted,
        checkpoint=checkpoint,
        recipe=recipe,
        choices=prefer_prefix_sharing(choices) if recipe.llm_reranker else choices,
        weights=weights,
        info=info,
    )


def _with_prompts(recipe: Recipe, name: str, prompts: dict[str, str]) -> Recipe:
    """Let the operator's prompts take the place of all that the files or the family say."""
    if recipe.task == "score":
        raise SettingsError(f"models: {name} takes pairs as they are; take its prompts out of the settings")
    default = recipe.default_prompt if recipe.default_prompt in prompts else None
    return msgspec.structs.replace(recipe, prompts=prompts, default_prompt=default, prompts_source="settings")


def _with_default(recipe: Recipe, wanted: ModelSettings) -> Recipe:
    """Let the operator decide what is put before a text whose caller can't say what it is."""
    if wanted.prompt and find_prompt(recipe.prompts, wanted.prompt) is None:
        there = ", ".join(prompt_names(recipe.prompts))
        raise SettingsError(f"models: {wanted.name} has no prompt {wanted.prompt!r}; there are: {there}")
    return msgspec.structs.replace(recipe, default_prompt=wanted.prompt or None)
