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


_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
_ENCODER = {**_BASE, "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2}
_BERT = {**_ENCODER, "vocab_size": 30522, "layer_norm_eps": 1e-12}
_QWEN = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 22016}
# What transformers takes where config.json lacks an option, and the model files don't, by model_type.
DEFAULTS: dict[str, Config] = {
    "bert": _BERT,
    "roberta": {**_BERT, "vocab_size": 50265},
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "modernbert": {**_BASE, "num_hidden_layers": 22, "intermediate_size": 1152, "vocab_size": 50368},
    "qwen2": {**_QWEN, "num_key_value_heads": 32, "rms_norm_eps": 1e-6, "vocab_size": 151936},
    "qwen3": {
        **_QWEN,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-6,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
    "gemma": {
        "hidden_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "intermediate_size": 24576,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "vocab_size": 256000,
        "tie_word_embeddings": True,
    },
    "llama": {"intermediate_size": 11008, "vocab_size": 32000, "rms_norm_eps": 1e-6},
    "gemma3_text": {
        "hidden_size": 2304,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "intermediate_size": 9216,
        "vocab_size": 262208,
        "sliding_window": 4096,
    },
    "lfm2": {
        "hidden_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 12288,
        "vocab_size": 65536,
        "max_position_embeddings": 128000,
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_multiple_of": 256,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": True,
    },
}


def add_defaults(config: Config) -> Config:
    """Return config.json's options, and for those that it lacks what transformers takes."""
    return DEFAULTS.get(config.get("model_type", ""), {}) | config


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


def layer_period(types: list[str], last: str) -> int:
    """Return after how many layers the types recur, if each period ends with this one."""
    found = [layer_type == last for layer_type in types]
    for period in range(1, len(types) + 2):
        if found == [at % period == period - 1 for at in range(len(types))]:
            return period
    raise Unsupported(f"layer_types = {types}")
