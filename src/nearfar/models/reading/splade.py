"""Reads models with sparse outputs: SPLADE, and BGE-M3's lexical weights and token vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import ModelConfig
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.files.safetensors import tensor_shapes
from nearfar.models.files.tokenizer_json import known_ids, open_tokenizer
from nearfar.models.reading.modules import Module, module_folder, unsupported_steps
from nearfar.models.recipe.dense import Dense
from nearfar.models.recipe.recipe import MultiVector, Recipe, Sparse

_M3_HEADS = ("colbert_linear", "sparse_linear")
_M3_SKIPPED = ("<s>", "</s>", "<pad>", "<unk>")


class _SpladePooling(Struct):
    """The config.json of sentence-transformers' SpladePooling."""

    pooling_strategy: Literal["max", "sum"] = "max"
    activation_function: Literal["relu", "log1p_relu"] = "relu"


def read_splade(folder: Path, config: ModelConfig, modules: list[Module] | None, *, assume: bool) -> Sparse | None:
    """Read SpladePooling from modules.json; without that file, ``assume`` its defaults for a masked language model.

    Returns None for other models. Raises CheckpointError for unsupported steps.
    """
    if modules is None:
        is_masked_lm = any(name.endswith("ForMaskedLM") for name in config.architectures or ())
        return Sparse(method="splade", size=_vocab_size(folder, config)) if is_masked_lm and assume else None
    kinds = [module.kind for module in modules]
    if "SpladePooling" not in kinds:
        return None
    if kinds not in (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"]):
        raise unsupported_steps(folder / "modules.json", modules, "Transformer, SpladePooling")
    pooling = read_optional_json(module_folder(folder, modules[1].path) / "config.json", _SpladePooling)
    return Sparse(
        method="splade",
        size=_vocab_size(folder, config),
        pooling=pooling.pooling_strategy,
        log_twice=pooling.activation_function == "log1p_relu",
    )


def read_m3_heads(folder: Path, config: ModelConfig, recipe: Recipe) -> Recipe:
    """Return the recipe with the two heads of BGE-M3, or as it is if the folder has no files for them."""
    files = [folder / f"{name}.safetensors" for name in _M3_HEADS]
    if not all(file.is_file() for file in files):
        return recipe
    colbert, lexical = (_read_linear(file, recipe.hidden_size) for file in files)
    if lexical.out_features != 1:
        raise CheckpointError(f"{lexical.file}: has {lexical.out_features} outputs a token; BGE-M3 has 1")
    skip_ids = known_ids(open_tokenizer(folder), _M3_SKIPPED)
    return msgspec.structs.replace(
        recipe,
        multi_vector=MultiVector(dense=(colbert,), normalize=True, skip_first=1),
        sparse=Sparse(method="lexical", size=_vocab_size(folder, config), head=lexical, skip_ids=skip_ids),
    )


def _read_linear(file: Path, hidden_size: int) -> Dense:
    match tensor_shapes(file):
        case {"weight": (outputs, inputs), **others} if inputs == hidden_size:
            return Dense(file=file, in_features=inputs, out_features=outputs, bias="bias" in others)
    raise CheckpointError(f"{file}: has no weight for {hidden_size} inputs")


def _vocab_size(folder: Path, config: ModelConfig) -> int:
    if not config.vocab_size:
        raise CheckpointError(f"{folder / 'config.json'}: has no vocab_size")
    return config.vocab_size
