"""The OpenVINO engine: the same checkpoints as Torch's, compiled for x86 CPUs.

A checkpoint is converted once, from its torch modules, and the result is cached; after that neither torch nor
transformers is imported, and a small model serves a second after its process started.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from pathlib import Path

from nearfar.core.settings import Device
from nearfar.engines.base import Engine, OpenRequest

_PACKAGES = ("openvino", "torch", "transformers")
_NVIDIA = Path("/dev/nvidiactl")


def disable_telemetry() -> None:
    """Hide the package ``openvino_telemetry``, so that openvino uses its own stub, which sends and writes nothing.

    Otherwise ``import openvino`` writes a client id under ``~/intel`` and reports itself to Google Analytics from a
    child process. The only official switch is a consent file in the home folder. Python itself sets None in
    ``sys.modules`` for a module that can't be imported. A program that imported openvino before nearfar keeps its own
    choice.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


disable_telemetry()  # here, because Python runs this file before any module of the package can import openvino


class OpenVinoKind:
    """Checks whether the engine can run, without importing openvino, and opens it."""

    # OpenVINO runs on ARM as well, but hasn't been compared with Torch there.
    priority = 20 if platform.machine() in {"x86_64", "AMD64"} else 5

    def unavailable_reason(self, device: Device) -> str | None:
        """Check for the packages, and for a GPU, which only Torch uses."""
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            return f'{", ".join(missing)} not installed; pip install "nearfar[openvino]"'
        if device not in {"auto", "cpu"}:
            return f"it has no {device}, only cpu"
        if device == "auto" and _NVIDIA.exists():
            return "there is an NVIDIA GPU, which it can't use; to use the CPU, set --device cpu"
        return None

    def open(self, request: OpenRequest) -> Engine:
        """Load the checkpoint, converting it first if it isn't in the cache."""
        from nearfar.engines.openvino.engine import OpenVinoEngine  # imports openvino, 0.2 s

        return OpenVinoEngine(request)


kind = OpenVinoKind()
