"""mlx-embeddings' and mlx-lm's model files, one at a time. The only place that imports either."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

from nearfar.core.errors import EngineUnavailable

if TYPE_CHECKING:
    from types import ModuleType


def model_file(name: str, package: str = "mlx_embeddings") -> ModuleType:
    """Import ``PACKAGE.models.NAME`` and the file of mlx-lm that it is made of, and nothing else.

    The packages' own beginnings import everything they can do, down to video decoders: that takes 6 s, while a model's
    file needs mlx alone. So a package stands there empty while its file is imported.
    Raises EngineUnavailable where a package isn't installed.
    """
    stand_ins = [whole for whole in ("mlx_embeddings", "mlx_lm") if whole not in sys.modules]
    for whole in stand_ins:
        if spec := importlib.util.find_spec(whole):
            sys.modules[whole] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module(f"{package}.models.{name}")
    except ImportError as error:
        raise EngineUnavailable(
            f'the MLX engine can\'t import {error.name or name}; pip install "nearfar[mlx]"'
        ) from error
    finally:
        for whole in stand_ins:
            sys.modules.pop(whole, None)
