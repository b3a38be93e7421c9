"""The public names of ``nearfar``, and that importing it loads no heavy library."""

from __future__ import annotations

import subprocess
import sys

import nearfar


def test_the_public_names_are_these() -> None:
    assert ["Engine", "ModelSettings", "NearfarError", "Settings", "create_app"] == nearfar.__all__
    for name in nearfar.__all__:
        assert getattr(nearfar, name).__name__ == name


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = "import nearfar, nearfar.core.settings, nearfar.cli.main, sys; print(*sorted(sys.modules))"

    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()

    assert not {"torch", "transformers", "litestar", "granian", "huggingface_hub", "numpy"} & set(loaded)
