"""nearfar: OpenAI's and Cohere's embedding and rerank protocols, served by a real model on your own machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearfar.core.errors import NearfarError
    from nearfar.core.settings import ModelSettings, Settings
    from nearfar.engines.base import Engine
    from nearfar.http.app import create_app

__all__ = ["Engine", "ModelSettings", "NearfarError", "Settings", "create_app"]

_MODULES = {
    "create_app": "nearfar.http.app",
    "Settings": "nearfar.core.settings",
    "ModelSettings": "nearfar.core.settings",
    "Engine": "nearfar.engines.base",
    "NearfarError": "nearfar.core.errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``nearfar serve`` has to hear signals before that takes its time."""
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _MODULES:
        raise AttributeError(f"module 'nearfar' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
