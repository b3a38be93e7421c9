"""sentence-transformers' modules.json → the steps after the transformer: Pooling, Dense, Normalize.

A step that isn't known, or stands where it isn't expected, is refused with its name: to leave one out would
change every number without saying so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from nearfar.errors import CheckpointError
from nearfar.models.files import read_json, read_json_if_there

Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
# In the order in which sentence-transformers joins the results of several modes.
POOLINGS: tuple[Pooling, ...] = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_POOLING_FLAGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class Dense(Struct, frozen=True, kw_only=True):
    """One linear layer after pooling: ``folder`` holds its safetensors, ``activation`` a torch.nn class name."""

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str


class Steps(Struct, frozen=True, kw_only=True):
    """What follows the transformer. ``source`` is the file that names the pooling."""

    pooling: tuple[Pooling, ...]
    source: str
    dense: tuple[Dense, ...]
    normalize: bool


class _Module(Struct):
    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        """Give the class' name, or for a class that isn't sentence-transformers' own, its whole path."""
        return self.type.rpartition(".")[2] if self.type.startswith("sentence_transformers.") else self.type


class _Names(Struct):
    """What a step reads and writes; only the pooled vector is supported."""

    module_input_name: str = "sentence_embedding"
    module_output_name: str | None = None


class _DenseConfig(_Names, kw_only=True):
    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False


class Pooled(NamedTuple):
    """A pooling and how it is known."""

    pooling: Pooling
    source: str


def read_steps(folder: Path, hidden_size: int, usual: Pooled | None = None) -> Steps | None:
    """Follow modules.json step by step; None where the folder has no such file.

    ``usual`` counts where the file that should name the pooling is missing: converters often leave folders out.

    Raises CheckpointError for a step, an order, an option or a width that can't be honoured.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return None
    modules = read_json(file, list[_Module])
    kinds = [module.kind for module in modules]
    middle = kinds[2:-1] if kinds[-1:] == ["Normalize"] else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Dense" for kind in middle):
        steps = ", ".join(module.type for module in modules)
        raise CheckpointError(f"{file}: only Transformer, Pooling, Dense…, Normalize are supported, not: {steps}")
    if modules[0].path:
        raise CheckpointError(f"{file}: the transformer lies in {modules[0].path!r}, not at the top")
    folders = [_inside(folder, module.path) for module in modules]
    file = folders[1] / "config.json"
    pooling, source = (
        ((usual.pooling,), f"{usual.source}; the folder has no {modules[1].path}/config.json")
        if (usual and not file.is_file())
        else (read_pooling(file, hidden_size), f"{modules[1].path}/config.json")
    )
    dense = tuple(_dense(at) for at, kind in zip(folders, kinds, strict=True) if kind == "Dense")
    if kinds[-1] == "Normalize":
        config = folders[-1] / "config.json"
        _refuse_other_vectors(config, read_json_if_there(config, _Names))
    _check_widths(dense, hidden_size * len(pooling))
    return Steps(
        pooling=pooling,
        source=source,
        dense=dense,
        normalize=kinds[-1] == "Normalize",
    )


def score_folder(folder: Path) -> Path | None:
    """Give the folder of LogitScore's config where modules.json says that it follows the transformer."""
    file = folder / "modules.json"
    modules = read_json(file, list[_Module]) if file.is_file() else []
    if [module.kind for module in modules] != ["Transformer", "LogitScore"]:
        return None
    return _inside(folder, modules[1].path)


def read_pooling(file: Path, hidden_size: int) -> tuple[Pooling, ...]:
    """Read the modes from either spelling: ``pooling_mode`` (6.x) or one ``pooling_mode_*`` flag a mode."""
    values = read_json(file, dict[str, Any])
    if values.get("include_prompt") is False:
        raise CheckpointError(f"{file}: include_prompt = false isn't supported")
    width = values.get("embedding_dimension") or values.get("word_embedding_dimension") or hidden_size
    if width != hidden_size:
        raise CheckpointError(f"{file}: pools {width} values a token where config.json has {hidden_size}")
    said = values.get("pooling_mode", [])
    modes = said if isinstance(said, list) else [said]
    if not modes:
        modes = [_POOLING_FLAGS.get(key, key) for key, on in values.items() if key.startswith("pooling_mode_") and on]
        modes.sort(key=lambda mode: POOLINGS.index(mode) if mode in POOLINGS else -1)
    try:
        return msgspec.convert(modes or ["mean"], tuple[Pooling, ...])
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{file}: the pooling {', '.join(map(str, modes))} isn't supported") from error


def _dense(folder: Path) -> Dense:
    file = folder / "config.json"
    config = read_json(file, _DenseConfig)
    if config.use_residual:
        raise CheckpointError(f"{file}: use_residual isn't supported")
    _refuse_other_vectors(file, config)
    if not config.activation_function.startswith("torch.nn."):
        raise CheckpointError(f"{file}: the activation {config.activation_function} isn't one of torch.nn's")
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"{folder}: has no model.safetensors; download it, or convert the pickle in its place")
    return Dense(
        folder=folder,
        in_features=config.in_features,
        out_features=config.out_features,
        bias=config.bias,
        activation=config.activation_function.rpartition(".")[2],
    )


def _refuse_other_vectors(file: Path, names: _Names) -> None:
    if {names.module_input_name, names.module_output_name} - {"sentence_embedding", None}:
        raise CheckpointError(f"{file}: works on {names.module_input_name}, not on the pooled vector alone")


def _check_widths(dense: tuple[Dense, ...], width: int) -> None:
    for layer in dense:
        if layer.in_features != width:
            raise CheckpointError(f"{layer.folder}: takes {layer.in_features} values and is given {width}")
        width = layer.out_features


def _inside(folder: Path, path: str) -> Path:
    """Join, refusing a path that leaves the folder."""
    if not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"{folder / 'modules.json'}: the path {path!r} leaves the folder")
    return folder / path
