"""Safetensors → the numbers of a network: one file or shards, float or quantised, by whatever prefix they were saved.

Every number the network needs must be there, and every one that is there must have its place: a bias that nobody adds
would change all answers without saying so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from msgspec import Struct

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.mlx.arrays import load_arrays
from nearfar.models.files.json_files import read_json
from nearfar.models.files.safetensors import find_tensor_file

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from pathlib import Path

# What a whole model's class puts before its transformer's names.
_PREFIX = re.compile(r"^(model|bert|roberta|transformer)\.")
# What checkpoints hold besides: positions counted out, heads that predict words, poolers and positions' frequencies.
_IDLE = re.compile(
    r"(position_ids|inv_freq|masked_bias)$|^(pooler|lm_head|cls|decoder|head|predictions|prediction_head)\.|_Dense\."
)
_INNER_DENSE = re.compile(r"^dense\.\d+\.")
_WAYS = ("group_size", "bits", "mode")
_PARTS = ("weight", "bias", "scales", "biases")

Quantization = dict[str, Any]


class Weights(Struct, frozen=True):
    """A folder's arrays by their place in a network; ``names`` are those they have in the folder."""

    arrays: dict[str, mx.array]
    names: dict[str, str]


class _Index(Struct):
    """model.safetensors.index.json."""

    weight_map: dict[str, str]


def load_weights(
    folder: Path, network: nn.Module, adapt: Callable[[str, mx.array], mx.array], elsewhere: Container[str] = ()
) -> Weights:
    """Read the folder's safetensors and find each array's place in the network, whose modules needn't be quantised yet.

    Those named in ``elsewhere`` have their place outside.

    Raises CheckpointError for files that can't be read, EngineUnavailable for arrays that have no place.
    """
    modules = {path for path, _ in network.named_modules()} | {path for path, _ in tree_flatten(network.parameters())}
    arrays: dict[str, mx.array] = {}
    names: dict[str, str] = {}
    for file in _files(folder):
        for name, array in load_arrays(file).items():
            place = _place(name, modules)
            if place:
                arrays[place], names[place] = adapt(name, array), name
            elif _INNER_DENSE.match(_PREFIX.sub("", name)):
                raise CheckpointError(
                    f"{file}: has Dense layers inside, as mlx-embeddings saves them, which modules.json should name; "
                    "take the original model, or quantise it with nearfar convert"
                )
            elif name not in elsewhere and not _IDLE.search(_PREFIX.sub("", name)):
                raise EngineUnavailable(f"{file}: MLX has no place for the weights {name}; use --engine torch")
    return Weights(arrays, names)


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(read_json(index, _Index).weight_map.values()))]
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))


def _place(name: str, modules: set[str]) -> str | None:
    bare = _PREFIX.sub("", name)
    for place in (f"head.{bare}", f"trunk.{bare}"):
        module, _, part = place.rpartition(".")
        if place in modules or (module in modules and part in _PARTS):
            return place
    return None


def read_quantization(folder: Path) -> Quantization | None:
    """Give what config.json says of MLX's quantisation: bits, group_size and mode, and where single layers differ.

    Raises EngineUnavailable for weights that are quantised in another way.
    """
    file = folder / "config.json"
    config = read_json(file, dict[str, Any])
    said = config.get("quantization") or config.get("quantization_config")
    if said is None:
        return None
    if not isinstance(said, dict) or "bits" not in said or "quant_method" in said:
        method = said.get("quant_method", "an unknown method") if isinstance(said, dict) else said
        raise EngineUnavailable(f"{file}: weights quantised with {method} aren't supported, only MLX's own")
    return said


def quantize_like(network: nn.Module, weights: Weights, quantization: Quantization) -> None:
    """Make those layers quantised whose weights are, each in its own way."""
    by_place = {
        place: quantization.get(weights.names[f"{place}.scales"].removesuffix(".scales"))
        for place in (name.removesuffix(".scales") for name in weights.arrays if name.endswith(".scales"))
    }
    usual: Quantization = {key: quantization[key] for key in _WAYS if key in quantization}

    def way(path: str, _module: nn.Module) -> bool | dict[str, Any]:
        own = by_place.get(path)
        return {**usual, **own} if isinstance(own, dict) else path in by_place

    try:
        nn.quantize(network, **usual, class_predicate=way)
    except Exception as error:
        raise CheckpointError(f"config.json: quantization {usual}: {error}") from error


def put(network: nn.Module, weights: Weights, dtype: mx.Dtype | None, folder: Path) -> None:
    """Fill the network, in ``dtype`` (None: as saved), and read everything in on this thread.

    Raises CheckpointError where weights are absent, of another shape, or not finite, EngineUnavailable where there are
    more than the network has use for.
    """
    wanted: dict[str, mx.array] = dict(tree_flatten(network.parameters()))
    absent = sorted(wanted.keys() - weights.arrays.keys())
    if absent:
        raise CheckpointError(
            f"{folder}: the weights lack {absent[0]} and {len(absent) - 1} more that the model needs; take a folder "
            "that has them"
        )
    extra = sorted(weights.arrays.keys() - wanted.keys())
    if extra:
        raise EngineUnavailable(
            f"{folder}: MLX has no place for the weights {weights.names[extra[0]]}; use --engine torch"
        )
    unlike = next((name for name, value in wanted.items() if value.shape != weights.arrays[name].shape), None)
    if unlike:
        found = weights.arrays[unlike].shape
        raise CheckpointError(
            f"{folder}: the weights {unlike} are {found} where config.json says {wanted[unlike].shape}"
        )
    filled = [(name, _cast(weights.arrays[name], dtype)) for name in wanted]
    network.load_weights(filled)
    network.eval()
    mx.eval(network.parameters())
    # As saved: what is too large for half precision isn't damaged, and shows in the answers.
    saved = ((name, weights.arrays[name]) for name in wanted)
    damaged = next((name for name, value in saved if _is_float(value) and not mx.isfinite(value).all().item()), None)
    if damaged:
        raise CheckpointError(
            f"{find_tensor_file(folder, weights.names[damaged])}: the weights are damaged: {damaged} holds numbers "
            "that aren't finite; download the model again"
        )


def _cast(array: mx.array, dtype: mx.Dtype | None) -> mx.array:
    return array.astype(dtype) if dtype is not None and _is_float(array) else array


def _is_float(array: mx.array) -> bool:
    return bool(mx.issubdtype(array.dtype, mx.floating))


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json whole. Raises CheckpointError."""
    return read_json(folder / "config.json", dict[str, Any])
