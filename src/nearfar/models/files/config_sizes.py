"""Refuses sizes in config.json that the weights can't have, before anything is built of that size."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nearfar.core.errors import CheckpointError
from nearfar.models.files.safetensors import find_shapes

_LAYERS = re.compile(r"(?i)(n|num|encoder|decoder)_(\w+_)?(layers?|blocks?|groups?|hidden_layers)")
_POSITIONS = re.compile(r"(?i)\w*(positions?|position_embeddings|length|seq_len|seqlen|window|attention|n_ctx|context)")
_SIZES = re.compile(
    r"(?i)\w*(size|dims?|heads?|experts?|embeddings|labels|buckets|ranks?|inner|embd|d_model|d_ff|d_kv|features|channels)"
)
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "emb_dim")
_DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_INNER = ("intermediate_size", "n_inner", "d_ff", "ffn_dim", "hidden_dim")
_NEVER_ZERO = {"hidden_size", "n_embd", "d_model", *_DEPTH, "vocab_size"}
_NEVER_NEGATIVE = {*_HIDDEN, *_DEPTH, *_INNER, "num_attention_heads", "vocab_size"}
# The most for what no tensor has the size of. Known models have up to 10 million positions.
_MAX_POSITIONS, _MAX_LAYERS, _MAX_SIZE = 2**24, 512, 2**16
# How many values a stored one may stand for: 2 bits each in 32, and layers may share weights.
_VALUES_EACH = 32


def refuse_absurd_sizes(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a size in config.json is far above what the folder's weights have."""
    shapes = find_shapes(folder)
    if not shapes:
        return  # another error names what is wrong with the weights
    largest = max((size for shape in shapes.values() for size in shape), default=0)
    limits = (
        (_LAYERS, max(len(shapes), _MAX_LAYERS), f"the weights have {len(shapes):,} tensors"),
        (_POSITIONS, _MAX_POSITIONS, f"no model has over {_MAX_POSITIONS:,}"),
        (_SIZES, max(largest * _VALUES_EACH, _MAX_SIZE), f"the weights' longest side is {largest:,}"),
    )
    for name, value in _numbers(config):
        if value < 0 and name in _NEVER_NEGATIVE:
            raise _error(folder, f"{name} = {value:,.0f}", "no model has a negative one")
        if value == 0 and name in _NEVER_ZERO:
            raise _error(folder, f"{name} = 0", "no model is without it")
        for pattern, limit, reason in limits:
            if not pattern.fullmatch(name):
                continue
            if value > limit:
                raise _error(folder, f"{name} = {value:,.0f}", reason)
            break
    values = sum(map(math.prod, shapes.values()))
    for part in (config, *(part for part in config.values() if isinstance(part, dict))):
        _refuse_product(folder, part, values)


def _refuse_product(folder: Path, config: Mapping[str, Any], values: int) -> None:
    """Raise CheckpointError if all layers together would have many times the weights' values."""
    hidden, layers, inner = (_first(config, names) for names in (_HIDDEN, _DEPTH, _INNER))
    needed = max(layers * hidden * max(hidden, inner), hidden * _first(config, ("vocab_size",)))
    if needed > values * _VALUES_EACH:
        sizes = f"{layers:,.0f} layers of {hidden:,.0f} values"
        raise _error(folder, sizes, f"the weights have {values:,} values in all")


def _error(folder: Path, what: str, reason: str) -> CheckpointError:
    return CheckpointError(f"{folder / 'config.json'}: {what} doesn't fit, since {reason}; download both again")


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> float:
    return next((config[name] for name in names if isinstance(config.get(name), int | float)), 0)


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield every number with the name of its field, also in lists and in nested objects."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _numbers(value)
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, int | float) and not isinstance(each, bool):
                yield name, each
            elif isinstance(each, dict):
                yield from _numbers(each)
