"""The MLX engine: Apple's array library, on the GPU of Apple Silicon; on Linux it runs on the CPU, slowly.

The transformers are mlx-embeddings' and mlx-lm's. Everything around them, from weights to vectors, is ours, so that a
Recipe means the same on every engine. Architectures that they lack are refused with a list of those they have.
"""

from __future__ import annotations

import importlib.util
import platform
import sys

from nearfar.core.settings import Device
from nearfar.engines.base import Engine, OpenRequest

_PACKAGES = ("mlx", "mlx_embeddings")


class MlxKind:
    """Checks whether the engine can run, without importing mlx, and opens it."""

    shares_prefixes = True
    # First on Apple Silicon. Elsewhere it is ten times slower than Torch, so it is only used on request.
    priority = 30 if sys.platform == "darwin" and platform.machine() == "arm64" else -1

    def unavailable_reason(self, device: Device) -> str | None:
        """Check for the packages; a missing GPU is refused when the engine opens."""
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            return f'{", ".join(missing)} not installed; pip install "nearfar[mlx]"'
        if device == "cuda":
            return "it has no cuda, only cpu and mps"
        return None

    def open(self, request: OpenRequest) -> Engine:
        """Load the checkpoint."""
        from nearfar.engines.mlx.engine import MlxEngine  # imports mlx, and a transformer's file

        return MlxEngine(request)


kind = MlxKind()
