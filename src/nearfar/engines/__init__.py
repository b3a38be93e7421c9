"""Engine classes, and the names that an engine plugin needs: token ids in, float32 out. No text, no asyncio, no HTTP.

A plugin is a package with an entry point in the group ``nearfar.engines`` that names an ``EngineKind``.
"""

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.core.settings import Device, Dtype
from nearfar.core.types import FloatArray, Representation, SparseVector
from nearfar.engines.base import Engine, EngineInfo, EngineKind, OpenRequest, RowsTooLarge
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row

__all__ = [
    "CheckpointError",
    "Device",
    "Dtype",
    "Engine",
    "EngineInfo",
    "EngineKind",
    "EngineUnavailable",
    "FloatArray",
    "OpenRequest",
    "Recipe",
    "Representation",
    "Row",
    "RowsTooLarge",
    "SparseVector",
]
