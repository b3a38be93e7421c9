"""Reads sentence-transformers' modules.json: the steps after the transformer (Pooling, Dense, Normalize).

An unknown or misplaced step is refused: leaving one out would silently change every number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from nearfar.core.errors import CheckpointError
from nearfar.models.files.json_files import MAX_NAME_BYTES, read_json, read_optional_json
from nearfar.models.reading.families import FamilyDefaults
from nearfar.models.recipe.dense import ACTIVATIONS, POOLINGS, Dense, Layer, LayerNorm, Normalize, Pooling, width_after
from nearfar.models.recipe.recipe import Recipe

_POOLING_FLAGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_POOLING_KEYS = {*_POOLING_FLAGS, "embedding_dimension", "include_prompt", "pooling_mode", "word_embedding_dimension"}
_POOLED = "sentence_embedding"
_AFTER_POOLING = {"Dense", "Dropout", "LayerNorm", "Normalize"}
# torch chooses their axis by the number of axes: for token vectors (B, T, D) the first, which is the batch.
_ACROSS_VECTORS = {"Softmax", "Softmin", "LogSoftmax"}
# The other steps of sentence-transformers, and what they are.
_OTHER_STEPS = {
    "StaticEmbedding": "a table of word vectors without a transformer, as model2vec makes them",
    "SparseStaticEmbedding": "a table of word weights without a transformer",
    "SparseAutoEncoder": "a layer that makes dense vectors sparse",
    "Router": "a choice between several models by the text's role",
    "Asym": "a choice between several models by the text's role",
    "CLIPModel": "a model of images and texts",
    "WeightedLayerPooling": "a mean of several layers' hidden states",
    "WordEmbeddings": "a table of word vectors without a transformer",
    "WordWeights": "weights for single words",
    "BoW": "a bag of words without a transformer",
    "LSTM": "a recurrent network",
    "CNN": "a convolutional network",
    "TokenPooling": "clusters of token vectors",
    "HierarchicalTokenPooling": "clusters of token vectors",
}

TRANSFORMERS = {"Transformer", "MLMTransformer"}
# The packages with known steps; a step of any other package is remote code.
KNOWN_PACKAGES = ("sentence_transformers.", "pylate.models.Dense.")


class Module(Struct):
    """One step of modules.json."""

    type: str
    name: str = ""
    path: str = ""

    @property
    def kind(self) -> str:
        """The class's name; with its package if that isn't a known one."""
        return self.type.rpartition(".")[2] if self.type.startswith(KNOWN_PACKAGES) else self.type


class _Names(Struct):
    """A step's input and output: ``sentence_embedding``, ``token_embeddings``, or None for the default."""

    module_input_name: str | None = None
    module_output_name: str | None = None


class _DropoutConfig(Struct, forbid_unknown_fields=True):
    dropout: Annotated[float, Meta(ge=0, le=1)] = 0.2


class _LayerNormConfig(Struct, forbid_unknown_fields=True):
    dimension: int


class _DenseConfig(Struct):
    """As in sentence-transformers, unknown keys are ignored; weights have to be in the layer's own file."""

    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False
    init_weight: None = None
    init_bias: None = None


def read_steps(folder: Path, recipe: Recipe, family: FamilyDefaults | None = None) -> Recipe | None:
    """Return the recipe with the steps of modules.json; None if the folder has no such file.

    The ``family``'s pooling applies if the pooling's own file is missing, which converters often leave out.
    Raises CheckpointError for an unsupported step, order, option or width.
    """
    modules = read_modules(folder)
    if modules is None:
        return None
    kinds = [module.kind for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - _AFTER_POOLING:
        raise unsupported_steps(folder / "modules.json", modules, "Transformer, Pooling, Dense, LayerNorm, Normalize")
    pooling_file, source = module_folder(folder, modules[1].path) / "config.json", f"{modules[1].path}/config.json"
    if family and not family.has_dense_layers and not pooling_file.is_file():
        recipe = msgspec.structs.replace(recipe, pooling=(family.pooling,))
        source = f"{family.reason}; the folder has no {source}"
    else:
        recipe = read_pooling(pooling_file, recipe)
    layers = read_layers(folder, modules[2:], recipe.hidden_size * len(recipe.pooling))
    normalize = layers[-1:] == (Normalize(),)
    return msgspec.structs.replace(
        recipe,
        pooling_source=source,
        layers=layers[:-1] if normalize else layers,
        normalize=normalize,
    )


def has_score_layer(folder: Path, modules: list[Module] | None) -> bool:
    """Return whether the last step is a Dense layer that computes a cross-encoder's scores from a pooled vector."""
    if not modules or modules[-1].kind != "Dense":
        return False
    names = read_optional_json(module_folder(folder, modules[-1].path) / "config.json", _Names)
    return names.module_output_name == "scores"


def read_layers(folder: Path, modules: Sequence[Module], width: int) -> tuple[Layer, ...]:
    """Read the steps after pooling, which take vectors of ``width``. Dropout does nothing outside of training."""
    layers: list[Layer] = []
    for module in modules:
        step = module_folder(folder, module.path)
        if module.kind == "Dense":
            before = width_after(tuple(layers), width)
            layers += read_dense_layers([step], _POOLED, before, scores=module is modules[-1])
        elif module.kind == "LayerNorm":
            layers.append(_read_layer_norm(step, width_after(tuple(layers), width)))
        elif module.kind == "Normalize":
            refuse_other_vectors(step, _POOLED)
            layers += [Normalize()] if layers[-1:] != [Normalize()] else []  # a second one changes nothing
        else:
            read_optional_json(step / "config.json", _DropoutConfig)
    return tuple(layers)


def find_logit_score(folder: Path) -> Path | None:
    """Return the folder of the LogitScore step if modules.json consists of the transformer and that step."""
    modules = read_modules(folder) or []
    if [module.kind for module in modules] != ["Transformer", "LogitScore"]:
        return None
    return module_folder(folder, modules[1].path)


def read_modules(folder: Path) -> list[Module] | None:
    """Read modules.json; return None if the folder has no such file.

    Raises CheckpointError for two steps of one name: sentence-transformers keeps only the last of them.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return None
    modules = read_json(file, list[Module])
    names = [module.name for module in modules]
    if repeated := next((name for name in names if name and names.count(name) > 1), None):
        raise CheckpointError(
            f"{file}: two steps have the name {repeated[:50]!r}, of which sentence-transformers applies one; give each "
            "its own name"
        )
    return modules


def read_pooling(file: Path, recipe: Recipe) -> Recipe:
    """Return the recipe with the modes of either format: ``pooling_mode`` (since 6.0) or a flag for each mode."""
    config = read_json(file, dict[str, Any])
    width = config.get("embedding_dimension") or config.get("word_embedding_dimension") or recipe.hidden_size
    if width != recipe.hidden_size:
        raise CheckpointError(
            f"{file}: pools vectors of {width}, but config.json has a hidden_size of {recipe.hidden_size}; download "
            "both again"
        )
    modes = config.get("pooling_mode", [])
    modes = modes if isinstance(modes, list) else [modes]
    if not modes:
        modes = [_POOLING_FLAGS.get(key, key) for key, on in config.items() if key.startswith("pooling_mode_") and on]
        modes.sort(key=lambda mode: POOLINGS.index(mode) if mode in POOLINGS else -1)
    try:
        pooling = msgspec.convert(modes or ["mean"], tuple[Pooling, ...])
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"{file}: the pooling {', '.join(map(str, modes))} isn't supported, only {', '.join(POOLINGS)}; use "
            "another model"
        ) from error
    if unknown := sorted(config.keys() - _POOLING_KEYS):
        raise CheckpointError(f"{file}: {unknown[0]} isn't an option of Pooling; remove it, or use another model")
    return msgspec.structs.replace(recipe, pooling=pooling, pools_prompt=bool(config.get("include_prompt", True)))


def read_dense_layers(folders: Iterable[Path], vectors: str, width: int, *, scores: bool = False) -> tuple[Dense, ...]:
    """Read Dense steps on ``vectors``: ``sentence_embedding`` or ``token_embeddings``; with ``scores``, to scores.

    Raises CheckpointError if the layers don't fit each other, or the first doesn't fit vectors of ``width``.
    """
    dense = tuple(_read_dense(folder, vectors, scores=scores) for folder in folders)
    for layer in dense:
        _check_width(layer.file.parent, layer.in_features, width)
        width = layer.out_features
    return dense


def _read_dense(folder: Path, vectors: str, *, scores: bool) -> Dense:
    file = folder / "config.json"
    config = read_json(file, _DenseConfig)
    refuse_other_vectors(folder, vectors, "scores" if scores else vectors)
    activation = config.activation_function.rpartition(".")[2]
    if not config.activation_function.startswith("torch.nn.") or activation not in ACTIVATIONS:
        raise CheckpointError(
            f"{file}: the activation {config.activation_function} isn't supported, only torch.nn's "
            f"{', '.join(sorted(ACTIVATIONS))}; use a model with one of these"
        )
    if vectors != _POOLED and activation in _ACROSS_VECTORS:
        raise CheckpointError(
            f"{file}: the activation {activation} mixes the tokens of several texts; use a model with another one"
        )
    return Dense(
        file=_find_weights(folder),
        in_features=config.in_features,
        out_features=config.out_features,
        bias=config.bias,
        activation=activation,
        residual=config.use_residual,
    )


def _read_layer_norm(folder: Path, width: int) -> LayerNorm:
    config = read_json(folder / "config.json", _LayerNormConfig)
    _check_width(folder, config.dimension, width)
    return LayerNorm(file=_find_weights(folder), size=config.dimension)


def _find_weights(folder: Path) -> Path:
    weights = folder / "model.safetensors"
    if weights.is_file():
        return weights
    raise CheckpointError(f"{folder}: has no model.safetensors; download it, or convert its pickle: nearfar unpickle")


def _check_width(folder: Path, takes: int, receives: int) -> None:
    if takes != receives:
        raise CheckpointError(
            f"{folder}: takes {takes} values but receives {receives}; download the model again, with all its steps"
        )


def refuse_other_vectors(folder: Path, vectors: str, written: str = "") -> None:
    """Raise CheckpointError for a step that reads anything but ``vectors``, or writes anything else, or ``written``."""
    file = folder / "config.json"
    names = read_optional_json(file, _Names)
    read, write = names.module_input_name, names.module_output_name
    other = read if read not in {vectors, None} else write if write not in {vectors, written or vectors, None} else None
    if other:
        raise CheckpointError(
            f"{file}: works on {other}; only {vectors} is supported; use a model with steps that follow one another"
        )


def module_folder(folder: Path, path: str) -> Path:
    """Return the folder of a step. Raises CheckpointError for a path that leads outside, or is no valid path."""
    if len(path.encode()) > MAX_NAME_BYTES or "\0" in path:
        raise CheckpointError(f"{folder / 'modules.json'}: {path[:50]!r} is no valid path")
    if ".." in Path(path).parts or not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(
            f"{folder / 'modules.json'}: the path {path!r} leads outside the folder; use the model as it was saved"
        )
    return folder / path


def unsupported_steps(file: Path, modules: list[Module], supported: str) -> CheckpointError:
    """Return the error for steps other than those, in that order; it describes a step that is known."""
    steps = ", ".join(module.kind for module in modules)
    known = next((module.kind for module in modules if module.kind in _OTHER_STEPS), None)
    if known:
        return CheckpointError(
            f"{file}: the step {known}, {_OTHER_STEPS[known]}, isn't supported; use a model with {supported} only, or "
            "run this one with sentence-transformers"
        )
    return CheckpointError(
        f"{file}: only {supported} are supported, in this order, not: {steps}; run it with sentence-transformers, or "
        "use another model"
    )
