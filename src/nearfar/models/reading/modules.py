"""Reads sentence-transformers' modules.json: the steps after the transformer (Pooling, Dense, Normalize).

An unknown or misplaced step is refused: leaving one out would silently change every number.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from nearfar.core.errors import CheckpointError
from nearfar.models.files.json_files import read_json, read_optional_json
from nearfar.models.reading.families import FamilyDefaults
from nearfar.models.recipe.dense import POOLINGS, Dense, Pooling
from nearfar.models.recipe.recipe import Recipe

_POOLING_FLAGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_MAX_NAME_BYTES = 255

# The packages with known steps; a step of any other package is remote code.
KNOWN_PACKAGES = ("sentence_transformers.", "pylate.models.Dense.")


class Module(Struct):
    """One step of modules.json."""

    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        """The class's name; with its package if that isn't a known one."""
        return self.type.rpartition(".")[2] if self.type.startswith(KNOWN_PACKAGES) else self.type


class _Names(Struct):
    """A step's input and output: ``sentence_embedding``, ``token_embeddings``, or None for the default."""

    module_input_name: str | None = None
    module_output_name: str | None = None


class _DenseConfig(Struct):
    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False


def read_steps(folder: Path, recipe: Recipe, family: FamilyDefaults | None = None) -> Recipe | None:
    """Return the recipe with the steps of modules.json; None if the folder has no such file.

    The ``family``'s pooling applies if the pooling's own file is missing, which converters often leave out.
    Raises CheckpointError for an unsupported step, order, option or width.
    """
    modules = read_modules(folder)
    if modules is None:
        return None
    file = folder / "modules.json"
    kinds = [module.kind for module in modules]
    normalize = kinds[-1:] == ["Normalize"]
    middle = kinds[2:-1] if normalize else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Dense" for kind in middle):
        raise unsupported_steps(file, modules, "Transformer, Pooling, Dense…, Normalize")
    if modules[0].path:
        raise CheckpointError(f"{file}: the transformer is in {modules[0].path!r}; only the folder itself is supported")
    folders = [module_folder(folder, module.path) for module in modules]
    pooling: tuple[Pooling, ...]
    pooling_file, source = folders[1] / "config.json", f"{modules[1].path}/config.json"
    if family and not family.has_dense_layers and not pooling_file.is_file():
        pooling, source = (family.pooling,), f"{family.reason}; the folder has no {source}"
    else:
        pooling = read_pooling(pooling_file, recipe.hidden_size)
    dense = read_dense_layers(folders[2 : 2 + len(middle)], "sentence_embedding", recipe.hidden_size * len(pooling))
    if normalize:
        refuse_other_vectors(folders[-1], "sentence_embedding")
    return msgspec.structs.replace(recipe, pooling=pooling, pooling_source=source, dense=dense, normalize=normalize)


def find_logit_score(folder: Path) -> Path | None:
    """Return the folder of the LogitScore step if modules.json consists of the transformer and that step."""
    modules = read_modules(folder) or []
    if [module.kind for module in modules] != ["Transformer", "LogitScore"]:
        return None
    return module_folder(folder, modules[1].path)


def read_modules(folder: Path) -> list[Module] | None:
    """Read modules.json; return None if the folder has no such file."""
    file = folder / "modules.json"
    return read_json(file, list[Module]) if file.is_file() else None


def read_pooling(file: Path, hidden_size: int) -> tuple[Pooling, ...]:
    """Read the modes from either format: ``pooling_mode`` (since 6.0) or a ``pooling_mode_*`` flag for each mode."""
    config = read_json(file, dict[str, Any])
    if config.get("include_prompt") is False:
        raise CheckpointError(f"{file}: include_prompt = false isn't supported")
    width = config.get("embedding_dimension") or config.get("word_embedding_dimension") or hidden_size
    if width != hidden_size:
        raise CheckpointError(f"{file}: pools vectors of {width}, but config.json has a hidden_size of {hidden_size}")
    modes = config.get("pooling_mode", [])
    modes = modes if isinstance(modes, list) else [modes]
    if not modes:
        modes = [_POOLING_FLAGS.get(key, key) for key, on in config.items() if key.startswith("pooling_mode_") and on]
        modes.sort(key=lambda mode: POOLINGS.index(mode) if mode in POOLINGS else -1)
    try:
        return msgspec.convert(modes or ["mean"], tuple[Pooling, ...])
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{file}: the pooling {', '.join(map(str, modes))} isn't supported") from error


def read_dense_layers(folders: Iterable[Path], vectors: str, width: int) -> tuple[Dense, ...]:
    """Read Dense steps on ``vectors``: ``sentence_embedding`` or ``token_embeddings``.

    Raises CheckpointError if the layers don't fit each other, or the first doesn't fit vectors of ``width``.
    """
    dense = tuple(_read_dense(folder, vectors) for folder in folders)
    for layer in dense:
        if layer.in_features != width:
            raise CheckpointError(f"{layer.file.parent}: takes {layer.in_features} values but receives {width}")
        width = layer.out_features
    return dense


def _read_dense(folder: Path, vectors: str) -> Dense:
    file, weights = folder / "config.json", folder / "model.safetensors"
    config = read_json(file, _DenseConfig)
    if config.use_residual:
        raise CheckpointError(f"{file}: use_residual isn't supported")
    refuse_other_vectors(folder, vectors)
    if not config.activation_function.startswith("torch.nn."):
        raise CheckpointError(f"{file}: the activation {config.activation_function} isn't one of torch.nn's")
    if not weights.is_file():
        raise CheckpointError(
            f"{folder}: has no model.safetensors; download it, or convert its pickle: nearfar unpickle"
        )
    return Dense(
        file=weights,
        in_features=config.in_features,
        out_features=config.out_features,
        bias=config.bias,
        activation=config.activation_function.rpartition(".")[2],
    )


def refuse_other_vectors(folder: Path, vectors: str) -> None:
    """Raise CheckpointError for a step that reads or writes anything but ``vectors``."""
    file = folder / "config.json"
    names = read_optional_json(file, _Names)
    for name in (names.module_input_name, names.module_output_name):
        if name not in {vectors, None}:
            raise CheckpointError(f"{file}: works on {name}; only {vectors} is supported")


def module_folder(folder: Path, path: str) -> Path:
    """Return the folder of a step. Raises CheckpointError for a path that leads outside, or is no valid path."""
    if len(path.encode()) > _MAX_NAME_BYTES or "\0" in path:
        raise CheckpointError(f"{folder / 'modules.json'}: {path[:50]!r} is no valid path")
    if not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"{folder / 'modules.json'}: the path {path!r} leads outside the folder")
    return folder / path


def unsupported_steps(file: Path, modules: list[Module], supported: str) -> CheckpointError:
    """Return the error for steps other than those, in that order."""
    steps = ", ".join(module.type for module in modules)
    return CheckpointError(f"{file}: only {supported} are supported, in this order, not: {steps}")
