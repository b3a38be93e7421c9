"""Reads embedding models: their prompts, and how hidden states become pooled, token or sparse vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, get_args

import msgspec
from msgspec import Struct

from nearfar.core.errors import CheckpointError
from nearfar.core.types import Task
from nearfar.models.files.causal_models import has_causal_mask
from nearfar.models.files.config import PROMPTS_FILE, ModelConfig, PromptsConfig, SentenceConfig, find_sentence_file
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.files.safetensors import tensor_shapes
from nearfar.models.files.tokenizer.tokenizer_json import known_ids, open_tokenizer
from nearfar.models.reading.colbert import is_multi_vector, read_multi_vector
from nearfar.models.reading.families import FamilyDefaults, find_family, name_roles
from nearfar.models.reading.modules import (
    Module,
    module_folder,
    read_modules,
    read_pooling,
    read_steps,
    unsupported_steps,
)
from nearfar.models.recipe.dense import Dense, Normalize, Pooling
from nearfar.models.recipe.recipe import MultiVector, Recipe, Similarity, Sparse

# Steps with folders that may exist without modules.json.
_SIMPLE_STEPS = {"Transformer", "Pooling", "Normalize"}
_M3_HEADS = ("colbert_linear", "sparse_linear")
_M3_SKIPPED = ("<s>", "</s>", "<pad>", "<unk>")
_DOWNLOAD = "download the model again with all its files"


class PromptSet(NamedTuple):
    """A model's prompts by name, the default one's name, and where they were read."""

    prompts: dict[str, str]
    default: str | None
    source: str


class _SpladePooling(Struct, forbid_unknown_fields=True):
    """The config.json of sentence-transformers' SpladePooling; the last three change no numbers."""

    pooling_strategy: Literal["max", "sum"] = "max"
    activation_function: Literal["relu", "log1p_relu"] = "relu"
    embedding_dimension: int | None = None
    word_embedding_dimension: int | None = None
    chunk_size: int | None = None


def read_embedder(  # noqa: PLR0913 — all that was read of the folder
    folder: Path,
    config: ModelConfig,
    recipe: Recipe,
    sentence: SentenceConfig,
    *,
    names: tuple[str, str],
    task: Task | None,
) -> Recipe:
    """Return the recipe with the model's outputs and prompts. Raises CheckpointError for what isn't supported."""
    modules = read_modules(folder)
    if is_multi_vector(folder, config, modules):
        return read_multi_vector(folder, config, recipe, modules)
    for name in ("query_length", "document_length", "query_expansion"):
        if getattr(sentence, name) is not None:
            raise CheckpointError(
                f"{find_sentence_file(folder)}: {name} is for the texts of one role, which is only supported for "
                "models with a vector for each token; remove it to serve the model without"
            )
    # A fine-tuned model keeps its base's pooling but not its prompts, so these go by its own name alone.
    prompts = read_prompts(folder, find_family(names[0]))
    recipe = msgspec.structs.replace(
        recipe, prompts=prompts.prompts, default_prompt=prompts.default, prompts_source=prompts.source
    )
    stated = read_optional_json(folder / PROMPTS_FILE, PromptsConfig)
    assume_splade = task == "sparse" or (task is None and "splade" in names[0].lower())
    if sparse := _read_splade(folder, config, modules, assume=assume_splade):
        reason = "the settings" if task else "the model's name"
        source = "modules.json" if modules else f"{reason}; the folder has no modules.json"
        sparse = msgspec.structs.replace(sparse, max_active=stated.max_active_dims)
        return msgspec.structs.replace(
            recipe, sparse=sparse, pooling_source=source, similarity=_similarity(stated, "dot")
        )
    if sentence.transformer_task == "fill-mask":
        raise CheckpointError(
            f"{find_sentence_file(folder)}: transformer_task is fill-mask, but modules.json has no "
            f"SpladePooling; {_DOWNLOAD}"
        )
    return _finish(stated, _read_pooled(folder, config, recipe, names))


def _finish(stated: PromptsConfig, recipe: Recipe) -> Recipe:
    """Return the recipe with the length that vectors are cut to, and with how they are compared.

    A cut vector isn't scaled to unit length again.
    """
    if stated.truncate_dim is not None and stated.truncate_dim < recipe.dim:
        layers = (*recipe.layers, Normalize()) if recipe.normalize else recipe.layers
        recipe = msgspec.structs.replace(recipe, layers=layers, normalize=False, truncate_dim=stated.truncate_dim)
    similarity = _similarity(stated, "cosine")
    if recipe.normalize and similarity == "dot":
        similarity = "cosine"  # the same for unit vectors
    return msgspec.structs.replace(recipe, similarity=similarity)


def _similarity(stated: PromptsConfig, default: Similarity) -> Similarity:
    """Return the stated similarity; sentence-transformers ignores other names."""
    known: tuple[Similarity, ...] = get_args(Similarity)
    return next((name for name in known if name == stated.similarity_fn_name), default)


def read_prompts(folder: Path, family: FamilyDefaults | None) -> PromptSet:
    """Read the folder's prompts; if its file has no list of them, not even an empty one, return the family's.

    Files of older versions have no such list. Raises CheckpointError for a default prompt that isn't in it.
    """
    file = folder / PROMPTS_FILE
    config = read_optional_json(file, PromptsConfig)
    default = config.default_prompt_name
    if default is not None and default not in (config.prompts or {}):
        raise CheckpointError(
            f"{file}: default_prompt_name is {default!r}, which isn't one of the prompts; add it, or remove the name"
        )
    if config.prompts is None:
        if family and family.prompts:
            return PromptSet(family.prompts, None, family.reason)
        return PromptSet({}, None, "")
    prompts = {name: prompt for name, prompt in config.prompts.items() if prompt}
    if family:
        prompts = name_roles(prompts)
    return PromptSet(prompts, default if default in prompts else None, PROMPTS_FILE if prompts else "")


def _read_pooled(folder: Path, config: ModelConfig, recipe: Recipe, names: tuple[str, str]) -> Recipe:
    """Return the recipe with pooling and the steps after it, and BGE-M3's other heads if it has them."""
    family = find_family(*names)
    if family and family.pooling != "lasttoken" and not family.has_dense_layers and has_causal_mask(config):
        family = None  # a later member of the family with another architecture, such as bge-en-icl
    pooled = read_steps(folder, recipe, family) or _assume_steps(folder, config, recipe, family)
    return _read_m3_heads(folder, config, pooled)


def _assume_steps(folder: Path, config: ModelConfig, recipe: Recipe, family: FamilyDefaults | None) -> Recipe:
    """Assume a folder's steps without modules.json: from 1_Pooling if it exists, the family, or the architecture.

    Raises CheckpointError if the model has more steps: only modules.json states their order.
    """
    steps = {file.parent.name.partition("_")[2]: file.parent for file in sorted(folder.glob("[0-9]_*/config.json"))}
    other = next((step.name for kind, step in steps.items() if kind not in _SIMPLE_STEPS), None)
    if other:
        raise CheckpointError(f"{folder}: has {other}, but no modules.json that says when to apply it; {_DOWNLOAD}")
    if family and family.has_dense_layers:
        raise CheckpointError(
            f"{folder}: has no modules.json, and {family.source} has Dense layers after its pooling; {_DOWNLOAD}"
        )
    pooling: tuple[Pooling, ...]
    if step := steps.get("Pooling"):
        recipe, source = read_pooling(step / "config.json", recipe), f"{step.name}/config.json"
        pooling = recipe.pooling
    elif family:
        pooling, source = (family.pooling,), family.reason
    elif has_causal_mask(config):
        pooling, source = ("lasttoken",), "default for decoders"
    else:
        pooling, source = ("mean",), "default for encoders"
    _refuse_another_pooling(folder, config, pooling)
    return msgspec.structs.replace(
        recipe,
        pooling=pooling,
        pooling_source=f"{source}; the folder has no modules.json",
        normalize=family.normalize if family else True,
    )


def _refuse_another_pooling(folder: Path, config: ModelConfig, pooling: tuple[Pooling, ...]) -> None:
    """Raise CheckpointError if config.json names a pooling that sentence-transformers and mlx-embeddings don't use."""
    named = str((config.pooling_config or {}).get("pooling_mode") or pooling[0])
    if named != pooling[0] and not (pooling[0] == "lasttoken" and named.startswith("last")):
        raise CheckpointError(
            f"{folder}/config.json: pooling_config names {named[:50]}, but libraries ignore it and use {pooling[0]}; "
            f'write {{"pooling_mode": "{named[:50]}"}} to 1_Pooling/config.json, or remove it from config.json'
        )


def _read_splade(folder: Path, config: ModelConfig, modules: list[Module] | None, *, assume: bool) -> Sparse | None:
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


def _read_m3_heads(folder: Path, config: ModelConfig, recipe: Recipe) -> Recipe:
    """Return the recipe with the two heads of BGE-M3, or as it is if the folder has no files for them."""
    files = [folder / f"{name}.safetensors" for name in _M3_HEADS]
    if not all(file.is_file() for file in files):
        return recipe
    colbert, lexical = (_read_linear(file, recipe.hidden_size) for file in files)
    if lexical.out_features != 1:
        raise CheckpointError(f"{lexical.file}: has {lexical.out_features} outputs a token; BGE-M3 has 1")
    skip_ids = known_ids(open_tokenizer(folder).tokenizer, _M3_SKIPPED)
    return msgspec.structs.replace(
        recipe,
        multi_vector=MultiVector(dense=(colbert,), normalize=True, skip_first=1),
        sparse=Sparse(method="lexical", size=_vocab_size(folder, config), head=lexical, skip_ids=skip_ids),
    )


def _read_linear(file: Path, hidden_size: int) -> Dense:
    match tensor_shapes(file):
        case {"weight": (outputs, inputs), **others} if inputs == hidden_size:
            return Dense(file=file, has_prefix=False, in_features=inputs, out_features=outputs, bias="bias" in others)
    raise CheckpointError(f"{file}: has no weight for {hidden_size} inputs")


def _vocab_size(folder: Path, config: ModelConfig) -> int:
    if not config.vocab_size:
        raise CheckpointError(f"{folder / 'config.json'}: has no vocab_size")
    return config.vocab_size
