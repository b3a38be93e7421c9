"""What becomes of a text's hidden states: a vector, one a token, sparse weights; by its files or its family."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import PROMPTS_FILE, SENTENCE_FILES, PromptsConfig
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.reading.colbert import is_multi_vector, read_multi_vector
from nearfar.models.reading.defaults import default_steps
from nearfar.models.reading.families import find_family
from nearfar.models.reading.modules import Pooled, read_modules, read_steps
from nearfar.models.reading.splade import read_m3, read_splade

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.core.types import Task
    from nearfar.models.files.config import ModelConfig, SentenceConfig
    from nearfar.models.reading.families import FamilyDefaults
    from nearfar.models.recipe.recipe import Recipe

# Decoder families: only the last token has seen the whole text. Names as in config.json's model_type.
_DECODERS = frozenset(
    (
        "gemma",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "gpt_neox",
        "llama",
        "mistral",
        "mixtral",
        "olmo",
        "olmo2",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "qwen3_moe",
    )
)


class Said(NamedTuple):
    """A model's prompts by their names, the one or the role that is put before any text, and what says so."""

    prompts: dict[str, str]
    default: str | None
    source: str


def read_prompts(folder: Path, known: FamilyDefaults | None) -> Said:
    """Read the folder's prompts; where none of its files speaks of any, take those that the family is known by.

    A file of an older version speaks of none. One that has a list, be it empty, has the last word.
    """
    file = folder / PROMPTS_FILE
    named = read_optional_json(file, PromptsConfig)
    if named.default_prompt_name and named.default_prompt_name not in (named.prompts or {}):
        raise CheckpointError(
            f"{file}: the default prompt {named.default_prompt_name!r} isn't among the prompts; add it, or take its "
            "name away"
        )
    if named.prompts is None:
        known_prompts = known.prompts if known else {}
        return Said(known_prompts, None, f"as {known.source}, by its name" if known and known_prompts else "")
    prompts = {name: prompt for name, prompt in named.prompts.items() if prompt}
    default = named.default_prompt_name if named.default_prompt_name in prompts else None
    return Said(prompts, default, PROMPTS_FILE if prompts else "")


def read_embedder(  # noqa: PLR0913 — all that is known of the folder
    folder: Path,
    config: ModelConfig,
    recipe: Recipe,
    sentence: SentenceConfig,
    *,
    names: tuple[str, str],
    task: Task | None,
) -> Recipe:
    """Add the outputs, the prompts, and how each of them is known.

    Raises CheckpointError for what can't be honoured.
    """
    modules = read_modules(folder)
    if is_multi_vector(folder, config, modules):
        found = read_multi_vector(folder, config, recipe.hidden_size, modules)
        return msgspec.structs.replace(
            recipe,
            multi_vector=found.multi_vector,
            pooling_source=found.source,
            prompts=found.prompts,
            prompts_source=found.source if found.prompts else "",
        )
    # A model tuned further pools as it did, but not what was put before its texts: prompts go by its own name alone.
    said = read_prompts(folder, find_family(names[0]))
    recipe = msgspec.structs.replace(
        recipe, prompts=said.prompts, default_prompt=said.default, prompts_source=said.source
    )
    weighs = task == "sparse" or (task is None and "splade" in names[0].lower())
    if sparse := read_splade(folder, config, modules, weighs=weighs):
        known = "the settings" if task else "the model's name"
        source = "modules.json" if modules else f"{known}; the folder has no modules.json"
        return msgspec.structs.replace(recipe, sparse=sparse, pooling_source=source)
    if sentence.transformer_task == "fill-mask":
        raise CheckpointError(
            f"{folder / SENTENCE_FILES[0]}: the transformer guesses words, and no SpladePooling makes weights of that; "
            "take a folder whose modules.json names one"
        )
    return _pooled(folder, config, recipe, names)


def _pooled(folder: Path, config: ModelConfig, recipe: Recipe, names: tuple[str, str]) -> Recipe:
    """Add the pooling and what follows it, and BGE-M3's other heads where they are."""
    decodes = config.model_type in _DECODERS
    known = find_family(*names)
    if known and known.pooling != "lasttoken" and not known.has_dense_layers and decodes:
        known = None  # a family's later, larger members: bge-en-icl is no BERT
    usual = Pooled(known.pooling, f"as {known.source}, by its name") if known and not known.has_dense_layers else None
    steps = read_steps(folder, recipe.hidden_size, usual) or default_steps(
        folder, recipe.hidden_size, known, decodes=decodes
    )
    multi_vector, sparse = read_m3(folder, config, recipe.hidden_size) or (None, None)
    return msgspec.structs.replace(
        recipe,
        multi_vector=multi_vector,
        sparse=sparse,
        pooling=steps.pooling,
        pooling_source=steps.source,
        dense=steps.dense,
        normalize=steps.normalize,
    )
