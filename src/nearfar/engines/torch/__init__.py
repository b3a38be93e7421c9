"""The Torch engine: any transformers encoder, decoder or cross-encoder, on cpu, cuda or mps."""

from __future__ import annotations

import importlib.util

from nearfar.core.settings import Device
from nearfar.engines.base import Engine, OpenRequest


class TorchKind:
    """Checks whether the engine can run, without importing torch, and opens it."""

    priority = 10
    shares_prefixes = True

    def unavailable_reason(self, device: Device) -> str | None:  # noqa: ARG002 — only torch itself knows its devices
        """Check for the packages; a missing device is refused when the engine opens."""
        missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
        return f'{", ".join(missing)} not installed; pip install "nearfar[torch]"' if missing else None

    def open(self, request: OpenRequest) -> Engine:
        """Load the checkpoint."""
        from nearfar.engines.torch.engine import TorchEngine  # imports torch, 1 to 2 s

        return TorchEngine(request)


kind = TorchKind()
