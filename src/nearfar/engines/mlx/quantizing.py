"""A checkpoint → the same in a new folder, its weights quantised in MLX's own way, and what that costs."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import mlx.core as mx
import msgspec
from mlx import nn
from mlx.utils import tree_flatten
from msgspec import Struct

from nearfar.core.errors import CheckpointError, SettingsError
from nearfar.engines.common.precision import Loss, measure_loss
from nearfar.engines.mlx.engine import MlxEngine
from nearfar.engines.mlx.network import load_network
from nearfar.engines.mlx.weights import read_config, read_quantization
from nearfar.models.files.config import PROMPTS_FILE, SENTENCE_FILES
from nearfar.models.files.json_files import read_optional_json

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from nearfar.engines.base import OpenRequest

_KEPT = re.compile(r".*\.(json|txt|model|jinja|md)|LICENSE.*|\d+_\w+")  # what a folder needs besides its weights
# What mlx has for each mode, the usual one first.
_GROUPS = {"affine": (64, 32, 128), "mxfp4": (32,), "mxfp8": (32,), "nvfp4": (16,)}
_BITS = {"affine": (4, 2, 3, 5, 6, 8), "mxfp4": (4,), "mxfp8": (8,), "nvfp4": (4,)}


class Quantized(Struct, frozen=True, kw_only=True):
    """What came of it: sizes of all weights in bytes, and the loss against float32 on the probes."""

    before: int
    after: int
    loss: Loss


class Way(Struct, frozen=True, kw_only=True):
    """How to quantise: mlx's mode, the bits a weight and the weights that share a scale, None for the mode's usual."""

    mode: str = "affine"
    bits: int | None = None
    group_size: int | None = None

    def checked(self) -> dict[str, Any]:
        """Give what mlx is told. Raises SettingsError for what the mode doesn't have."""
        for what, said, there in (("bits", self.bits, _BITS), ("weights a group", self.group_size, _GROUPS)):
            if said is not None and said not in there[self.mode]:
                raise SettingsError(
                    f"{self.mode} has {' or '.join(map(str, sorted(there[self.mode])))} {what}, not {said}"
                )
        bits, group_size = self.bits or _BITS[self.mode][0], self.group_size or _GROUPS[self.mode][0]
        return {"group_size": group_size, "bits": bits, "mode": self.mode}


def quantize_folder(request: OpenRequest, target: Path, way: Way, name: str = "") -> Quantized:
    """Write the checkpoint to ``target``, a folder that isn't there yet, with its matrices quantised.

    What the Recipe took from the model's ``name`` is written down there, so that the folder may be called anything.
    Raises SettingsError for a mode that mlx doesn't have or a folder that exists, CheckpointError for a checkpoint that
    is quantized already.
    """
    told = way.checked()
    if target.exists():
        raise SettingsError(f"{target} is there already; name another folder with --out")
    if read_quantization(request.folder):
        raise CheckpointError(f"{request.folder}: is quantised already; start from the original")
    answer = "embed" if request.recipe.task == "embed" else "score"
    exact = getattr(MlxEngine(request), answer)(request.probes)
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _write(request, unfinished, told)
    _name(request, unfinished, name)
    unfinished.rename(target)
    found = getattr(MlxEngine(msgspec.structs.replace(request, folder=target, dtype="auto")), answer)(request.probes)
    return Quantized(before=_size(request.folder), after=_size(target), loss=measure_loss(exact, found))


def _write(request: OpenRequest, target: Path, way: dict[str, Any]) -> None:
    network, weights = load_network(request, None)

    def fits(path: str, module: nn.Module) -> bool:
        """Leave out what mlx can't quantise, and a classifier's few rows, which would save nothing."""
        small = path.startswith("head.") and not path.endswith("lm_head")
        return hasattr(module, "to_quantized") and module.weight.shape[-1] % way["group_size"] == 0 and not small

    nn.quantize(network, **way, class_predicate=fits)
    if not any("scales" in module for _, module in network.named_modules()):
        raise SettingsError(f"{request.folder}: none of its matrices can be parted into groups of {way['group_size']}")
    arrays = {}
    for place, array in tree_flatten(network.parameters()):
        module, _, part = place.rpartition(".")
        name = weights.names.get(place) or weights.names[f"{module}.weight"].removesuffix("weight") + part
        arrays[name] = array
    mx.eval(arrays)
    mx.save_safetensors(str(target / "model.safetensors"), arrays, metadata={"format": "mlx"})
    for entry in request.folder.iterdir():
        if _KEPT.fullmatch(entry.name) and not entry.name.endswith(".safetensors.index.json"):
            (shutil.copytree if entry.is_dir() else shutil.copy)(entry, target / entry.name)
    config = read_config(request.folder) | {"quantization": way, "quantization_config": way}
    (target / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _name(request: OpenRequest, target: Path, name: str) -> None:
    """Write down what another folder's name wouldn't tell: the model's own, its pooling, its prompts and its limit."""
    recipe = request.recipe
    files: dict[str, object] = {"config.json": read_config(target) | {"_name_or_path": name or request.folder.name}}
    if recipe.task == "embed" and not (target / "modules.json").exists():
        kinds = ["Transformer", "Pooling", *(["Normalize"] if recipe.normalize else [])]
        paths = ("", "1_Pooling", "2_Normalize")
        files["modules.json"] = [
            {"idx": at, "name": str(at), "path": paths[at], "type": f"sentence_transformers.models.{kind}"}
            for at, kind in enumerate(kinds)
        ]
        pooling = {"word_embedding_dimension": recipe.hidden_size, "pooling_mode": list(recipe.pooling)}
        files["1_Pooling/config.json"] = pooling
    if recipe.task == "embed":
        said = read_optional_json(target / PROMPTS_FILE, dict[str, object])
        if said.get("prompts") is None:
            files[PROMPTS_FILE] = said | {"prompts": recipe.prompts, "default_prompt_name": recipe.default_prompt}
        if not any((target / file).is_file() for file in SENTENCE_FILES):
            files[SENTENCE_FILES[0]] = {"max_seq_length": recipe.max_tokens}
    for path, content in files.items():
        (target / path).parent.mkdir(exist_ok=True)
        (target / path).write_text(json.dumps(content, indent=2), encoding="utf-8")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
