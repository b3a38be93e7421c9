"""sentence-transformers' modules.json → the steps after the transformer: Pooling, Dense, Normalize.

A step that isn't known, or stands where it isn't expected, is refused with its name: to leave one out would
change every number without saying so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Struct

from nearfar.core.errors import CheckpointError
from nearfar.models.files.json_files import read_json, read_optional_json
from nearfar.models.recipe.dense import POOLINGS, Dense, Pooling

if TYPE_CHECKING:
    from pathlib import Path


_POOLING_FLAGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

_LONGEST = 255  # bytes of a name, on every system

# Whose steps are known; any other's are code of the model's own.
MAKERS = ("sentence_transformers.", "pylate.models.Dense.")


class Steps(Struct, frozen=True, kw_only=True):
    """What follows the transformer. ``source`` is the file that names the pooling."""

    pooling: tuple[Pooling, ...]
    source: str
    dense: tuple[Dense, ...]
    normalize: bool


class Module(Struct):
    """One step of modules.json."""

    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        """Give the class' name, or for a class that is nobody's we know, its whole path."""
        return self.type.rpartition(".")[2] if self.type.startswith(MAKERS) else self.type


class Names(Struct):
    """What a step reads and writes: the pooled vector, or each token's; None where it isn't said."""

    module_input_name: str | None = None
    module_output_name: str | None = None


class _DenseConfig(Names, kw_only=True):
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
    modules = read_modules(folder)
    if modules is None:
        return None
    file = folder / "modules.json"
    kinds = [module.kind for module in modules]
    middle = kinds[2:-1] if kinds[-1:] == ["Normalize"] else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Dense" for kind in middle):
        steps = ", ".join(module.type for module in modules)
        raise CheckpointError(f"{file}: only Transformer, Pooling, Dense…, Normalize are supported, not: {steps}")
    if modules[0].path:
        raise CheckpointError(f"{file}: the transformer lies in {modules[0].path!r}, not at the top")
    folders = [inside(folder, module.path) for module in modules]
    file = folders[1] / "config.json"
    pooling, source = (
        ((usual.pooling,), f"{usual.source}; the folder has no {modules[1].path}/config.json")
        if (usual and not file.is_file())
        else (read_pooling(file, hidden_size), f"{modules[1].path}/config.json")
    )
    dense = tuple(
        read_dense(at, "sentence_embedding") for at, kind in zip(folders, kinds, strict=True) if kind == "Dense"
    )
    if kinds[-1] == "Normalize":
        config = folders[-1] / "config.json"
        refuse_other_vectors(config, read_optional_json(config, Names), "sentence_embedding")
    check_widths(dense, hidden_size * len(pooling))
    return Steps(
        pooling=pooling,
        source=source,
        dense=dense,
        normalize=kinds[-1] == "Normalize",
    )


def find_logit_score(folder: Path) -> Path | None:
    """Give the folder of LogitScore's config where modules.json says that it follows the transformer."""
    modules = read_modules(folder) or []
    if [module.kind for module in modules] != ["Transformer", "LogitScore"]:
        return None
    return inside(folder, modules[1].path)


def read_modules(folder: Path) -> list[Module] | None:
    """Read modules.json; None where the folder has no such file."""
    file = folder / "modules.json"
    return read_json(file, list[Module]) if file.is_file() else None


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


def read_dense(folder: Path, works_on: str) -> Dense:
    """Read a Dense step that is to work on ``works_on``, what sentence-transformers calls a vector of this kind."""
    file = folder / "config.json"
    config = read_json(file, _DenseConfig)
    if config.use_residual:
        raise CheckpointError(f"{file}: use_residual isn't supported")
    refuse_other_vectors(file, config, works_on)
    if not config.activation_function.startswith("torch.nn."):
        raise CheckpointError(f"{file}: the activation {config.activation_function} isn't one of torch.nn's")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise CheckpointError(f"{folder}: has no model.safetensors; download it, or write the pickle in its place anew")
    return Dense(
        file=weights,
        in_features=config.in_features,
        out_features=config.out_features,
        bias=config.bias,
        activation=config.activation_function.rpartition(".")[2],
    )


def refuse_other_vectors(file: Path, names: Names, works_on: str) -> None:
    """Refuse a step that reads or writes anything but ``works_on``."""
    for name in (names.module_input_name, names.module_output_name):
        if name not in {works_on, None}:
            raise CheckpointError(f"{file}: works on {name}, not on {works_on} alone")


def check_widths(dense: tuple[Dense, ...], width: int) -> None:
    """Refuse layers that don't fit together, or the ``width`` that the first one is given."""
    for layer in dense:
        if layer.in_features != width:
            raise CheckpointError(f"{layer.file.parent}: takes {layer.in_features} values and is given {width}")
        width = layer.out_features


def inside(folder: Path, path: str) -> Path:
    """Join a path of modules.json to the folder, refusing one that leaves it, or that no system could have."""
    if len(path.encode()) > _LONGEST or "\0" in path:
        raise CheckpointError(f"{folder / 'modules.json'}: {path[:50]!r} is no path of a folder")
    if not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"{folder / 'modules.json'}: the path {path!r} leaves the folder")
    return folder / path
