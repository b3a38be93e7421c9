"""Safetensors → a network's weights: one file or shards, float or quantized, with any prefix in their names.

Every weight that the network needs must exist, and every one that exists must be used: a bias that isn't added would
change all numbers silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from msgspec import Struct

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.models.files.json_files import read_json
from nearfar.models.files.safetensors import find_layer_tensors, find_tensor_file, weight_files
from nearfar.models.recipe.dense import Dense, LayerNorm

# What a whole model's class adds before its transformer's names.
_PREFIX = re.compile(r"^(model|bert|roberta|transformer)\.")
# Arrays that checkpoints contain but no output needs: positions, masked-language-model heads, poolers, frequencies.
_UNUSED = re.compile(
    r"(position_ids|inv_freq|masked_bias)$|^(pooler|lm_head|cls|decoder|head|predictions|prediction_head)\.|_Dense\."
)
_OUTPUT_EMBEDDINGS = re.compile(r"^(lm_head|cls\.predictions\.decoder)\.weight$")
_INNER_DENSE = re.compile(r"^dense\.\d+\.")
# The activations that were compared with torch's; mlx has them under the same names.
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "PReLU")
_OPTIONS = ("group_size", "bits", "mode")
_PARTS = ("weight", "bias", "scales", "biases")

Quantization = dict[str, Any]


class PlacedWeights(Struct, frozen=True):
    """A folder's arrays by their path in a network, and the names that these have in the folder."""

    arrays: dict[str, mx.array]
    names: dict[str, str]
    # Unused ones by their names in the folder: those that compute logits where they aren't the embeddings.
    output_embeddings: dict[str, mx.array]


def read_config(folder: Path) -> dict[str, Any]:
    """Read all of config.json. Raises CheckpointError."""
    return read_json(folder / "config.json", dict[str, Any])


def load_arrays(file: Path) -> dict[str, mx.array]:
    """Open a safetensors file: its arrays by name, lazy.

    Raises CheckpointError if it is missing or damaged, EngineUnavailable for a type that MLX lacks, such as float64.
    """
    try:
        return cast("dict[str, mx.array]", mx.load(str(file)))
    except Exception as error:  # mlx passes on what its C++ raises
        if "unsupported dtype" in str(error):
            raise EngineUnavailable(f"{file}: MLX can't read it: {error}; use --engine torch") from error
        raise CheckpointError(f"{file}: can't be loaded: {error}; download the model again") from error


def load_layer(layer: Dense | LayerNorm, rounds_to: str | None = None) -> nn.Module:
    """Load a layer in float32, its weights first rounded. Raises EngineUnavailable for an activation that MLX lacks."""
    if isinstance(layer, LayerNorm):
        module = nn.Module()
        module.norm = nn.LayerNorm(layer.size, eps=1e-5)
        run: nn.Module = nn.Sequential(module.norm)
    else:
        if layer.activation not in _ACTIVATIONS:
            raise EngineUnavailable(f"{layer.file}: MLX has no activation {layer.activation} here; use --engine torch")
        module = run = DenseLayer(layer)
    arrays = load_arrays(layer.file)
    names = find_layer_tensors(layer).items()
    module.load_weights([(name, _cast(_rounded(arrays[found], rounds_to), mx.float32)) for name, found in names])
    mx.eval(module.parameters())
    return run


class DenseLayer(nn.Module):
    """A linear layer and its activation; ``residual`` adds the input. Attributes are named as in the file."""

    def __init__(self, dense: Dense) -> None:
        super().__init__()
        self.linear = nn.Linear(dense.in_features, dense.out_features, bias=dense.bias)
        self.activation_function = getattr(nn, dense.activation)()
        self._adds_input = dense.residual
        if "residual.weight" in dense.tensors:
            self.residual = nn.Linear(dense.in_features, dense.out_features, bias=False)

    def __call__(self, vectors: mx.array) -> mx.array:
        """Map (…, in_features) to (…, out_features)."""
        projected: mx.array = self.activation_function(self.linear(vectors))
        if not self._adds_input:
            return projected
        return projected + (self.residual(vectors) if "residual" in self else vectors)


def load_weights(
    folder: Path, network: nn.Module, adapt: Callable[[str, mx.array], mx.array], used_elsewhere: Container[str] = ()
) -> PlacedWeights:
    """Open the folder's safetensors and find each array's path in the network, which needn't be quantized yet.

    Names in ``used_elsewhere`` need no path. Raises CheckpointError for files that can't be read, EngineUnavailable for
    arrays that the network doesn't have.
    """
    modules = {path for path, _ in network.named_modules()} | {path for path, _ in tree_flatten(network.parameters())}
    arrays: dict[str, mx.array] = {}
    names: dict[str, str] = {}
    output_embeddings: dict[str, mx.array] = {}
    for file in weight_files(folder):
        for name, array in load_arrays(file).items():
            path = _find_path(name, modules)
            if path in names:
                raise EngineUnavailable(
                    f"{file}: MLX has one place for the weights {names[path]} and {name}; use --engine torch"
                )
            if path:
                arrays[path], names[path] = adapt(name, array), name
            elif _OUTPUT_EMBEDDINGS.search(name):
                output_embeddings[name] = array
            elif _INNER_DENSE.match(_PREFIX.sub("", name)):
                raise CheckpointError(
                    f"{file}: has Dense layers inside, as mlx-embeddings saves them, which modules.json should name; "
                    "use the original model, or quantize it with nearfar convert"
                )
            elif name not in used_elsewhere and not _UNUSED.search(_PREFIX.sub("", name)):
                raise EngineUnavailable(f"{file}: MLX has no place for the weights {name}; use --engine torch")
    return PlacedWeights(arrays, names, output_embeddings)


def refuse_untied(weights: PlacedWeights, embeddings: str, folder: Path) -> None:
    """Raise EngineUnavailable if the folder has output embeddings that differ from those at a path in the network.

    transformers then uses them, although config.json ties them.
    """
    tied = weights.arrays.get(embeddings)
    for name, array in weights.output_embeddings.items():
        if tied is None or array.shape != tied.shape or not mx.array_equal(array, tied).item():
            raise EngineUnavailable(
                f"{folder}: its weights {name} differ from the input embeddings, to which config.json ties them; MLX "
                "can't use both; use --engine torch"
            )


def _find_path(name: str, modules: set[str]) -> str | None:
    bare = _PREFIX.sub("", name)
    for path in (f"head.{bare}", f"trunk.{bare}"):
        module, _, part = path.rpartition(".")
        if path in modules or (module in modules and part in _PARTS):
            return path
    return None


def read_quantization(folder: Path) -> Quantization | None:
    """Return config.json's MLX quantization: bits, group_size and mode, and single layers' own; None without one.

    Raises EngineUnavailable for another library's quantization.
    """
    config = read_config(folder)
    quantization = config.get("quantization") or config.get("quantization_config")
    if quantization is None:
        return None
    if not isinstance(quantization, dict) or "bits" not in quantization or "quant_method" in quantization:
        method = quantization.get("quant_method", "another method") if isinstance(quantization, dict) else quantization
        raise EngineUnavailable(
            f"{folder / 'config.json'}: weights quantized with {method} aren't supported, only MLX's own; "
            "use the unquantized model, or --engine torch"
        )
    return quantization


def quantize_like(network: nn.Module, weights: PlacedWeights, quantization: Quantization) -> None:
    """Quantize the layers of the network that have quantized weights, each with its own options."""
    defaults: Quantization = {key: quantization[key] for key in _OPTIONS if key in quantization}

    def options(path: str, _module: nn.Module) -> bool | dict[str, Any]:
        scales = weights.names.get(f"{path}.scales")
        own = quantization.get(scales.removesuffix(".scales")) if scales else None
        return {**defaults, **own} if isinstance(own, dict) else scales is not None

    try:
        nn.quantize(network, **defaults, class_predicate=options)
    except Exception as error:
        raise CheckpointError(
            f"config.json: MLX can't read weights quantized with {defaults}: {error}; quantize the original model with "
            "nearfar convert"
        ) from error


def fill(network: nn.Module, weights: PlacedWeights, dtype: mx.Dtype | None, request: OpenRequest) -> None:
    """Fill the network in ``dtype`` (None: as saved), and evaluate all weights on this thread.

    They are first rounded where transformers does so. Raises CheckpointError for weights that are missing, have another
    shape, or aren't finite, EngineUnavailable for more than the network has.
    """
    parameters: dict[str, mx.array] = dict(tree_flatten(network.parameters()))
    folder, rounds_to = request.folder, request.recipe.rounds_to
    _refuse_mismatch(parameters, weights, folder)
    network.load_weights([(path, _cast(_rounded(weights.arrays[path], rounds_to), dtype)) for path in parameters])
    network.eval()
    mx.eval(network.parameters())
    # As saved: a value that is too large for half precision isn't damaged, and is refused in the results.
    saved = ((path, weights.arrays[path]) for path in parameters)
    damaged = next((path for path, value in saved if _is_float(value) and not mx.isfinite(value).all().item()), None)
    if damaged:
        raise CheckpointError(
            f"{find_tensor_file(folder, weights.names[damaged])}: the weights are damaged: {damaged} has values that "
            "aren't finite; download the model again"
        )


def _refuse_mismatch(parameters: dict[str, mx.array], weights: PlacedWeights, folder: Path) -> None:
    missing = sorted(parameters.keys() - weights.arrays.keys())
    others = f" and {len(missing) - 1} more" if missing[1:] else ""
    if missing:
        raise CheckpointError(
            f"{folder}: the weights lack {missing[0]}{others} that the model needs; use a folder that has them"
        )
    extra = sorted(weights.arrays.keys() - parameters.keys())
    if extra:
        raise EngineUnavailable(
            f"{folder}: MLX has no place for the weights {weights.names[extra[0]]}; use --engine torch"
        )
    for path, parameter in parameters.items():
        shape = weights.arrays[path].shape
        if parameter.shape != shape:
            raise CheckpointError(
                f"{folder}: the weights {path} are {shape}, but {parameter.shape} according to config.json; "
                "use --engine torch, or another folder"
            )


def _cast(array: mx.array, dtype: mx.Dtype | None) -> mx.array:
    return array.astype(dtype) if dtype is not None and _is_float(array) else array


def _rounded(array: mx.array, rounds_to: str | None) -> mx.array:
    return _cast(array, getattr(mx, rounds_to)) if rounds_to else array


def _is_float(array: mx.array) -> bool:
    return bool(mx.issubdtype(array.dtype, mx.floating))
