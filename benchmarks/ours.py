"""Our own server: how it is started, and where its model lies for others to load."""

from __future__ import annotations

import sys

from launch import Recipe


def nearfar_recipe(*, model: str | None = None, engine: str | None = None, dtype: str | None = None) -> Recipe:
    """Say how our own server is started."""
    command = [sys.executable, "-m", "nearfar", "serve", *([model] if model else []), "--port", "{port}"]
    for option, value in (("--engine", engine), ("--dtype", dtype)):
        command += [option, value] if value else []
    return Recipe(command=tuple(command), environment={"HF_HUB_OFFLINE": "1"} if model is None else {})


def model_folder(model: str | None) -> str:
    """Name the model as sentence-transformers finds it: the built-in one's folder, or as it was said."""
    from nearfar.models.hub.checkpoint import find_builtin

    return model or str(find_builtin().folder)
