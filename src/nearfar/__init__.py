"""nearfar: OpenAI's and Cohere's embedding and rerank protocols, served by a real model on your own machine."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearfar.core.errors import NearfarError
    from nearfar.core.settings import ModelSettings, Settings
    from nearfar.engines.base import Engine
    from nearfar.http.app import create_app

__all__ = ["Engine", "ModelSettings", "NearfarError", "Settings", "create_app"]
__version__ = version("nearfar")

logging.getLogger(__name__).addHandler(logging.NullHandler())  # the program that imports this decides where logs go

_MODULES = {
    "create_app": "nearfar.http.app",
    "Settings": "nearfar.core.settings",
    "ModelSettings": "nearfar.core.settings",
    "Engine": "nearfar.engines.base",
    "NearfarError": "nearfar.core.errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``nearfar --help`` needn't load a web server."""
    if name not in _MODULES:
        raise AttributeError(f"module 'nearfar' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
