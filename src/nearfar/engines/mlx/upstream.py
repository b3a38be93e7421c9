"""mlx-embeddings' and mlx-lm's model files, and config.json's options compared with what these files compute.

The only place that imports either package. An option that a file would ignore is refused: ignoring it would change
every number silently.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from nearfar.core.errors import EngineUnavailable

Config = dict[str, Any]


class Unsupported(EngineUnavailable):
    """An option of config.json that the model file doesn't implement; another engine may."""

    def __init__(self, what: str) -> None:
        super().__init__(f"config.json: the MLX engine doesn't support {what}; use --engine torch")


def build_model(file: str, kind: str, config: Config, package: str = "mlx_embeddings") -> Any:
    """Build the class ``kind`` of a model file. Raises TypeError if config.json lacks an option."""
    module = _import_model_file(file, package)
    return getattr(module, kind)(module.ModelArgs.from_dict(config))


def _import_model_file(name: str, package: str) -> ModuleType:
    """Import ``PACKAGE.models.NAME`` and the mlx-lm file that it builds on, and nothing else.

    The packages' own ``__init__`` import everything they can do, down to video decoders, which takes 6 s; a model file
    needs mlx alone. So an empty package takes their place during the import. Raises EngineUnavailable if a package
    isn't installed.
    """
    placeholders = [whole for whole in ("mlx_embeddings", "mlx_lm") if whole not in sys.modules]
    for whole in placeholders:
        if spec := importlib.util.find_spec(whole):
            sys.modules[whole] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module(f"{package}.models.{name}")
    except ImportError as error:
        raise EngineUnavailable(
            f'the MLX engine can\'t import {error.name or name}; pip install "nearfar[mlx]"'
        ) from error
    finally:
        for whole in placeholders:
            sys.modules.pop(whole, None)


def require(config: Config, **expected: object) -> None:
    """Raise Unsupported for an option that is set to another value than the model file implements."""
    for name, value in expected.items():
        actual = config.get(name)
        if actual is not None and actual != value:
            raise Unsupported(f"{name} = {actual}")


def require_full_attention(config: Config) -> None:
    """Raise Unsupported if some layers attend to a part of the text only."""
    types = set(config.get("layer_types") or ())
    if types - {"full_attention"}:
        raise Unsupported(f"layer_types = {', '.join(sorted(types))}")


def rope_theta(config: Config, layer_type: str = "", default: float = 10_000.0) -> float:
    """Return the base of the rotary positions, in either spelling. Raises Unsupported for scaled positions."""
    parameters: Config = config.get("rope_parameters") or {}
    parameters = parameters.get(layer_type, parameters)
    if parameters.get("rope_type", "default") != "default" or config.get("rope_scaling"):
        raise Unsupported("scaled rotary positions")
    return float(parameters.get("rope_theta") or config.get("rope_theta") or default)


def layer_period(types: list[str], wanted: str, *, first: int | None) -> int:
    """Return after how many layers a type recurs: starting with layer ``first``, or (None) ending each period."""
    found = [layer_type == wanted for layer_type in types]
    for period in range(1, len(types) + 2):
        start = period - 1 if first is None else first
        if found == [at % period == start for at in range(len(types))]:
            return period
    raise Unsupported(f"layer_types = {types}")
