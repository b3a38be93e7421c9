"""Models of which a text becomes weights of the vocabulary's tokens, nearly all of them 0: how a folder says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from nearfar.core.errors import CheckpointError
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.files.safetensors import tensor_shapes
from nearfar.models.files.tokenizer_json import open_tokenizer
from nearfar.models.reading.modules import Module, inside
from nearfar.models.recipe.dense import Dense
from nearfar.models.recipe.multi_vector import MultiVector
from nearfar.models.recipe.sparse import Sparse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nearfar.models.files.config import ModelConfig

M3_HEADS = ("colbert_linear", "sparse_linear")


class _SpladePooling(Struct):
    """SpladePooling's config.json."""

    pooling_strategy: Literal["max", "sum"] = "max"
    activation_function: Literal["relu", "log1p_relu"] = "relu"


def read_splade(folder: Path, config: ModelConfig, modules: Sequence[Module] | None, *, weighs: bool) -> Sparse | None:
    """Read a SPLADE model's way, from modules.json, or if it ``weighs`` words without one, the usual; else None.

    Raises CheckpointError for a step that can't be honoured.
    """
    kinds = [module.kind for module in modules or ()]
    if modules is None:
        speaks = any(kind.endswith("ForMaskedLM") for kind in config.architectures or ())
        return Sparse(method="splade", size=_size(folder, config)) if speaks and weighs else None
    if "SpladePooling" not in kinds:
        return None
    if kinds not in (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"]):
        steps = ", ".join(module.type for module in modules)
        raise CheckpointError(f"{folder / 'modules.json'}: only Transformer, SpladePooling are supported, not: {steps}")
    said = read_optional_json(inside(folder, modules[1].path) / "config.json", _SpladePooling)
    twice = said.activation_function == "log1p_relu"
    return Sparse(method="splade", size=_size(folder, config), pooling=said.pooling_strategy, log_twice=twice)


def read_m3(folder: Path, config: ModelConfig, hidden_size: int) -> tuple[MultiVector, Sparse] | None:
    """Read the two heads that BGE-M3 has beside its pooled vector; None where their files aren't there."""
    files = [folder / f"{name}.safetensors" for name in M3_HEADS]
    if not all(file.is_file() for file in files):
        return None
    colbert, weigh = (_linear(file, hidden_size) for file in files)
    if weigh.out_features != 1:
        raise CheckpointError(f"{weigh.file}: gives {weigh.out_features} weights a token where 1 is due")
    tokenizer = open_tokenizer(folder)
    special = {
        found for word in ("<s>", "</s>", "<pad>", "<unk>") if (found := tokenizer.token_to_id(word)) is not None
    }
    multi_vector = MultiVector(dense=(colbert,), normalize=True, skip_first=1)
    return multi_vector, Sparse(method="lexical", size=_size(folder, config), head=weigh, skip_ids=frozenset(special))


def _linear(file: Path, hidden_size: int) -> Dense:
    shapes = tensor_shapes(file)
    weight = shapes.get("weight", ())
    if len(weight) != 2 or weight[1] != hidden_size:  # noqa: PLR2004 — a matrix
        raise CheckpointError(f"{file}: has no weight that takes {hidden_size} values")
    return Dense(file=file, in_features=hidden_size, out_features=weight[0], bias="bias" in shapes)


def _size(folder: Path, config: ModelConfig) -> int:
    if not config.vocab_size:
        raise CheckpointError(f"{folder / 'config.json'}: states no vocab_size")
    return config.vocab_size
