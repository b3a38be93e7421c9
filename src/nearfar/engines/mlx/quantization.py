"""A checkpoint → a new folder with its weights quantized in MLX's format, and the loss of precision."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
from mlx import nn
from mlx.utils import tree_flatten
from msgspec import Struct

from nearfar.core.errors import CheckpointError, SettingsError
from nearfar.engines.base import OpenRequest
from nearfar.engines.common.precision import PrecisionLoss, measure_loss
from nearfar.engines.mlx.engine import MlxEngine
from nearfar.engines.mlx.network import load_network
from nearfar.engines.mlx.weights import read_config, read_quantization
from nearfar.models.files.config import PROMPTS_FILE, find_sentence_file
from nearfar.models.files.json_files import read_optional_json

_COPIED = re.compile(r".*\.(json|txt|model|jinja|md)|LICENSE.*|\d+_\w+")  # what a folder needs besides its weights
# What mlx supports for each mode, its default first.
_GROUP_SIZES = {"affine": (64, 32, 128), "mxfp4": (32,), "mxfp8": (32,), "nvfp4": (16,)}
_BITS = {"affine": (4, 2, 3, 5, 6, 8), "mxfp4": (4,), "mxfp8": (8,), "nvfp4": (4,)}


class QuantizationResult(Struct, frozen=True, kw_only=True):
    """The size of all weights before and after, and the loss against float32 on the probes."""

    bytes_before: int
    bytes_after: int
    loss: PrecisionLoss


class QuantizationOptions(Struct, frozen=True, kw_only=True):
    """mlx's mode, the bits per weight, and the weights per scale; None for the mode's default."""

    mode: str = "affine"
    bits: int | None = None
    group_size: int | None = None

    def resolve(self) -> dict[str, Any]:
        """Return mlx's arguments. Raises SettingsError for what the mode doesn't support."""
        for what, value, supported in (
            ("bits", self.bits, _BITS[self.mode]),
            ("weights a group", self.group_size, _GROUP_SIZES[self.mode]),
        ):
            if value is not None and value not in supported:
                raise SettingsError(f"{self.mode} has {' or '.join(map(str, sorted(supported)))} {what}, not {value}")
        bits, group_size = self.bits or _BITS[self.mode][0], self.group_size or _GROUP_SIZES[self.mode][0]
        return {"group_size": group_size, "bits": bits, "mode": self.mode}


def quantize_folder(
    request: OpenRequest, target: Path, options: QuantizationOptions, name: str = ""
) -> QuantizationResult:
    """Write the checkpoint to ``target``, a new folder, with its matrices quantized.

    What the Recipe derives from the model's ``name`` is written there as well, so the folder may have any name. Raises
    SettingsError for an unsupported mode or a folder that exists, CheckpointError for a quantized checkpoint.
    """
    arguments = options.resolve()
    if target.exists():
        raise SettingsError(f"{target} already exists; name another folder with --out")
    if read_quantization(request.folder):
        raise CheckpointError(f"{request.folder}: is already quantized; start from the original")
    method = "embed" if request.recipe.task == "embed" else "score"
    exact = getattr(MlxEngine(request), method)(request.probes)
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _write_quantized(request, unfinished, arguments)
    _write_recipe(request, unfinished, name)
    unfinished.rename(target)
    quantized = MlxEngine(msgspec.structs.replace(request, folder=target, dtype="auto"))
    return QuantizationResult(
        bytes_before=_weight_bytes(request.folder),
        bytes_after=_weight_bytes(target),
        loss=measure_loss(exact, getattr(quantized, method)(request.probes), request.recipe.outputs, request.probes),
    )


def _write_quantized(request: OpenRequest, target: Path, arguments: dict[str, Any]) -> None:
    network, weights = load_network(request, None)

    def fits(path: str, module: nn.Module) -> bool:
        """Leave out what mlx can't quantize, and a classifier's few rows, which would save nothing."""
        small = path.startswith("head.") and not path.endswith("lm_head")
        return hasattr(module, "to_quantized") and module.weight.shape[-1] % arguments["group_size"] == 0 and not small

    nn.quantize(network, **arguments, class_predicate=fits)
    if not any("scales" in module for _, module in network.named_modules()):
        raise SettingsError(
            f"{request.folder}: none of its matrices can be split into groups of {arguments['group_size']}"
        )
    arrays = {}
    for path, array in tree_flatten(network.parameters()):
        module, _, part = path.rpartition(".")
        name = weights.names.get(path) or weights.names[f"{module}.weight"].removesuffix("weight") + part
        arrays[name] = array
    mx.eval(arrays)
    mx.save_safetensors(str(target / "model.safetensors"), arrays, metadata={"format": "mlx"})
    for entry in request.folder.iterdir():
        if _COPIED.fullmatch(entry.name) and not entry.name.endswith(".safetensors.index.json"):
            (shutil.copytree if entry.is_dir() else shutil.copy)(entry, target / entry.name)
    config = read_config(request.folder) | {"quantization": arguments, "quantization_config": arguments}
    _write_json(target / "config.json", config)


def _write_recipe(request: OpenRequest, target: Path, name: str) -> None:
    """Write what the folder's new name no longer implies: the model's name, its pooling, its prompts and its limit."""
    recipe = request.recipe
    _write_json(target / "config.json", read_config(target) | {"_name_or_path": name or request.folder.name})
    if recipe.task != "embed":
        return
    if not (target / "modules.json").exists():
        kinds = {"": "Transformer", "1_Pooling": "Pooling"} | ({"2_Normalize": "Normalize"} if recipe.normalize else {})
        modules = [
            {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for at, (path, kind) in enumerate(kinds.items())
        ]
        _write_json(target / "modules.json", modules)
        pooling = {"word_embedding_dimension": recipe.hidden_size, "pooling_mode": list(recipe.pooling)}
        _write_json(target / "1_Pooling" / "config.json", pooling)
    stated = read_optional_json(target / PROMPTS_FILE, dict[str, object])
    if stated.get("prompts") is None:
        prompts = {"prompts": recipe.prompts, "default_prompt_name": recipe.default_prompt}
        _write_json(target / PROMPTS_FILE, stated | prompts)
    sentence_file = find_sentence_file(target)
    if not sentence_file.is_file():
        _write_json(sentence_file, {"max_seq_length": recipe.max_tokens})


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
