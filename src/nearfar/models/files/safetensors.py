"""Weight files: which ones a checkpoint has, whether they are complete, and their tensors' names, shapes and sizes.

Reads headers and file sizes only, so a 10 GB file takes as long as a small one.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from msgspec import Struct
from safetensors import SafetensorError, safe_open

from nearfar.core.errors import CheckpointError
from nearfar.models.files.json_files import GIT_LFS, MAX_NAME_BYTES, read_json, unreadable
from nearfar.models.recipe.dense import Dense, LayerNorm
from nearfar.models.recipe.recipe import Recipe

# The layers with which transformers' classes score or classify texts or tokens.
HEAD = re.compile(
    r"(\w*classifier|score|classification_head|regression_head|logits_proj|out_proj|qa_outputs|sequence_summary"
    r"|(start|end)_logits|answer_class|entity_linker|splinter_qass)\."
)
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.safetensors")
_FILE_NAME = re.compile(r"[^/\\\0]*[^/\\\0.][^/\\\0]*")  # no path, not "." or ".."
PICKLES = (".bin", ".pt", ".pth")  # of weights; loading them can run code
_SCALED = ("F8", "F6_", "F4", "I8", "U8", "I4", "U4")  # beginnings of safetensors' names of types; F64 is none
_SINGLE = "model.safetensors"
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_BYTES_EACH = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


class WeightSizes(Struct, frozen=True, kw_only=True):
    """How large a checkpoint's weights are."""

    parameters: int
    file_bytes: int
    quantized: bool = False

    def bytes_in_memory(self, dtype: str) -> int:
        """Return the bytes of the weights in this dtype; an unknown one counts as float32. Quantized ones stay as is.

        Does not count what an engine allocates beside the weights.
        """
        return self.file_bytes if self.quantized else self.parameters * _BYTES_EACH.get(dtype, 4)


def read_weight_sizes(folder: Path, recipe: Recipe) -> WeightSizes:
    """Add up the weights that the engines read.

    Raises CheckpointError for a damaged file, and for weights of 8 bits or fewer without a description of their scales.
    """
    if not recipe.quantized:
        _refuse_scaled_weights(folder / recipe.subfolder)
    files = {*weight_files(folder / recipe.subfolder), *(layer.file for layer in recipe.weighted_layers)}
    return WeightSizes(
        parameters=sum(
            math.prod(shape)
            for file in files
            for name, shape in tensor_shapes(file).items()
            if not name.endswith("position_ids")  # a buffer in old files, not a parameter
        ),
        file_bytes=sum(file.stat().st_size for file in files),
        quantized=recipe.quantized,
    )


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return each tensor's shape by its name. Raises CheckpointError for a damaged or truncated file.

    safetensors checks that the tensors fill the file without gaps or overlaps, and that each has its shape's size.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(len(GIT_LFS))
        if start == GIT_LFS:
            raise CheckpointError(f"{file}: is a Git LFS pointer, not the weights; run git lfs pull")
        with safe_open(file, framework="np") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 — no dict
    except OSError as error:
        raise unreadable(file, error) from error
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ")[:200] if start else "the file is empty"
        raise CheckpointError(f"{file}: is truncated or damaged ({reason}); download it again") from error


def find_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return all tensors' shapes by their names; none if a file is missing or damaged."""
    try:
        return {name: shape for file in weight_files(folder) for name, shape in tensor_shapes(file).items()}
    except CheckpointError:
        return {}


def find_dtype(folder: Path) -> str | None:
    """Return the precision that transformers takes from the weights where config.json states none.

    It is that of the first floating tensor, or the index's. None if there is no such tensor, or a file is damaged.
    """
    index = folder / f"{_SINGLE}.index.json"
    try:
        first = weight_files(folder)[0]
        if first.name != _SINGLE and index.is_file():
            stated = (read_json(index, dict[str, Any]).get("metadata") or {}).get("dtype")
            if stated:
                return str(stated)
        return next((_FLOATS[name] for name in _tensor_types(first).values() if name in _FLOATS), None)
    except (CheckpointError, LookupError):
        return None


def _tensor_types(file: Path) -> dict[str, str]:
    """Return each tensor's type by its name, as safetensors names it. Raises CheckpointError for a damaged file."""
    tensor_shapes(file)
    with safe_open(file, framework="np") as opened:
        return {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118 — no dict


def find_layer_tensors(layer: Dense | LayerNorm) -> dict[str, str]:
    """Return the names in the layer's file by those that the layer has.

    Raises CheckpointError for weights that are missing, superfluous or of another shape.
    """
    shapes = tensor_shapes(layer.file)
    parts = {name.partition(".")[0] for name in (*layer.tensors, "residual.weight", "activation_function.weight")}
    # Stanford's ColBERT has its layer among the transformer's weights.
    prefix = "" if isinstance(layer, LayerNorm) or layer.has_prefix else "linear."
    names = {f"{prefix}{name}": name for name in shapes}
    names = {name: found for name, found in names.items() if name.partition(".")[0] in parts}
    file, config = layer.file, layer.file.parent / "config.json"
    for name in {**layer.tensors, **names}:
        expected, found = layer.tensors.get(name), shapes.get(names.get(name, ""))
        if found is None:
            raise CheckpointError(f"{file}: has no {name}, which {config} asks for; download both again")
        if expected is None:
            raise CheckpointError(f"{file}: has {name}, for which {config} has no option; download both again")
        if found != expected:
            raise CheckpointError(
                f"{file}: {name} is {found}, but {expected} according to {config}; download both again"
            )
    return {name: names[name] for name in layer.tensors}


def _refuse_scaled_weights(folder: Path) -> None:
    if "quantization_config" in read_json(folder / "config.json", dict[str, Any]):
        return  # the engine knows whether it can read them
    for file in weight_files(folder):
        types = _tensor_types(file)
        scaled = [name for name in types if name.endswith("weight") and types[name].startswith(_SCALED)]
        if scaled:
            raise CheckpointError(
                f"{file}: {scaled[0]} is quantized ({types[scaled[0]]}), and config.json has no quantization_config "
                "that says how; take the original model"
            )


def find_tensor_file(folder: Path, name: str) -> Path:
    """Return the file that contains the tensor, also under a longer or shorter prefix; the folder if none does."""
    for suffix in filter(None, (name, name.partition(".")[2])):
        for file in weight_files(folder):
            if any(found == suffix or found.endswith(f".{suffix}") for found in tensor_shapes(file)):
                return file
    return folder


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers would load; others may be in another precision or incomplete downloads.

    Raises CheckpointError if a shard is missing that the index, or the other shards' names, call for.
    """
    single, index = folder / _SINGLE, folder / f"{_SINGLE}.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        return _numbered_shards(folder, index.name)
    weight_map = read_json(index, dict[str, Any]).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: its weight_map lists no files; download it again")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if not _FILE_NAME.fullmatch(name) or len(name.encode()) > MAX_NAME_BYTES:
            raise CheckpointError(f"{index}: lists {name[:200]!r}, which isn't a file in the folder; download it again")
        if not (folder / name).is_file():
            raise CheckpointError(f"{index}: lists {name}, which is missing; download that file")
    return [folder / name for name in names]


def _numbered_shards(folder: Path, index: str) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    for shard in filter(None, (_SHARD.fullmatch(file.name) for file in files)):
        stem, _, count = shard.groups()
        for number in range(1, int(count) + 1):
            file = folder / f"{stem}-{number:05}-of-{count}.safetensors"
            if not file.is_file():
                raise CheckpointError(f"{file}: is missing, and so is {index}; download both")
    return files
