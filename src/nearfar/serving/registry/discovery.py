"""Discovery: from a model's settings to its recipe and description. Reads all but the weights; opens no engine."""

from __future__ import annotations

import math

import msgspec
from msgspec import Struct

from nearfar.core.errors import SettingsError
from nearfar.core.settings import Device, Dtype, Load, ModelSettings, OnOverflow, Settings
from nearfar.core.types import ModelInfo
from nearfar.engines.selection import EngineChoice, choose_engines, prefer_prefix_sharing
from nearfar.models.files.safetensors import WeightSizes, read_weight_sizes
from nearfar.models.hub.checkpoint import Checkpoint, find_checkpoint
from nearfar.models.hub.download import Hub
from nearfar.models.reading.reader import read_recipe
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.prompts import find_prompt, prompt_names
from nearfar.serving.registry.description import describe_checkpoint


class ResolvedModelSettings(Struct, frozen=True, kw_only=True):
    """One model's settings; those that it doesn't have are the server's."""

    # As in the settings: the built-in model, a folder or a name on the hub.
    name: str
    engine: str
    device: Device
    dtype: Dtype
    on_overflow: OnOverflow
    # Whether it is compared with the library that wrote it.
    verify: bool
    # The limit of the settings, if there is one.
    max_tokens: int | None
    load: Load
    # Never unloaded but by an explicit request.
    pin: bool
    # Unloaded after so many seconds without a request; infinite: never.
    idle_timeout_s: float


class DiscoveredModel(Struct, frozen=True, kw_only=True):
    """Everything known about a model before an engine loads it."""

    settings: ResolvedModelSettings
    checkpoint: Checkpoint
    recipe: Recipe
    # The engines that can run here, best first.
    choices: list[EngineChoice]
    weights: WeightSizes
    info: ModelInfo


def resolve_settings(model: ModelSettings, server: Settings) -> ResolvedModelSettings:
    """Fill in the server's settings where the model's are unset."""
    return ResolvedModelSettings(
        name=model.name,
        engine=model.engine or server.engine,
        device=model.device or server.device,
        dtype=model.dtype or server.dtype,
        on_overflow=model.on_overflow or server.on_overflow,
        verify=server.verify if model.verify is None else model.verify,
        max_tokens=model.max_tokens,
        load=model.load or server.load,
        pin=model.pin,
        idle_timeout_s=model.idle_timeout_s or server.idle_timeout_s or math.inf,
    )


def discover_model(model: ModelSettings, server: Settings) -> DiscoveredModel:
    """Find and read a model's files, and list the engines that can run here. Raises a SetupError where that fails."""
    settings = resolve_settings(model, server)
    choices = choose_engines(settings.engine, settings.device)  # first: nothing is downloaded without an engine
    checkpoint = find_checkpoint(model.name, Hub(endpoint=server.hub_endpoint, offline=server.offline))
    recipe = read_recipe(checkpoint.folder, model.max_tokens, checkpoint.name, model.task)
    if model.prompts is not None:
        recipe = _with_prompts(recipe, model.name, model.prompts)
    if model.prompt is not None:
        recipe = _with_default_prompt(recipe, model.name, model.prompt)
    weights = read_weight_sizes(checkpoint.folder, recipe)
    info = describe_checkpoint(checkpoint, recipe, model, weights)
    if model.task and model.task not in info.tasks:
        labels = f": it has {len(info.labels)} labels, and a reranker has one" if len(info.labels) > 1 else ""
        raise SettingsError(f"models: {model.name} can't {model.task}, only {', '.join(info.tasks)}{labels}")
    return DiscoveredModel(
        settings=settings,
        checkpoint=checkpoint,
        recipe=recipe,
        choices=prefer_prefix_sharing(choices) if recipe.llm_reranker else choices,
        weights=weights,
        info=msgspec.structs.replace(info, engine=settings.engine, device=settings.device, dtype=settings.dtype),
    )


def _with_prompts(recipe: Recipe, name: str, prompts: dict[str, str]) -> Recipe:
    """Replace the prompts of the files or the family by those of the settings."""
    if recipe.task == "score":
        raise SettingsError(f"models: {name} takes pairs as they are; take its prompts out of the settings")
    if any(prompts.values()) and not (recipe.pools_prompt or recipe.chat or recipe.can_leave_out_prompt):
        raise SettingsError(
            f"models: {name} leaves a prompt's tokens out of the pooling (include_prompt = false), which is only "
            "supported for one vector a text that isn't a weighted mean; take its prompts out of the settings"
        )
    default = recipe.default_prompt if recipe.default_prompt in prompts else None
    return msgspec.structs.replace(recipe, prompts=prompts, default_prompt=default, prompts_source="settings")


def _with_default_prompt(recipe: Recipe, name: str, prompt: str) -> Recipe:
    """Set the prompt of texts without a role; an empty name is no prompt."""
    if prompt and find_prompt(recipe.prompts, prompt) is None:
        existing = ", ".join(prompt_names(recipe.prompts))
        raise SettingsError(f"models: {name} has no prompt {prompt!r}; there are: {existing}")
    return msgspec.structs.replace(recipe, default_prompt=prompt or None)
