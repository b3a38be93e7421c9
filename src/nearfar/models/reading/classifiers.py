"""Sequence classifiers: cross-encoders, whose one label is how well a pair fits, and those of several labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import PROMPTS_FILE, PromptsConfig
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.reading.causal_rerankers import find_pair_prompt

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.models.files.config import ModelConfig
    from nearfar.models.recipe.recipe import Recipe

_SINGLE = {"Sigmoid", "Identity"}  # mean the same to us: the head gives a logit, and a score is its sigmoid
_SEVERAL = {"Sigmoid", "Identity", "Softmax"}


def read_classifier(folder: Path, config: ModelConfig, recipe: Recipe, names: tuple[str, ...]) -> Recipe:
    """Add a classifier's labels, and how their logits become scores.

    Raises CheckpointError for an activation or a prompt that can't be honoured.
    """
    newer = folder / PROMPTS_FILE
    if read_optional_json(newer, PromptsConfig).default_prompt_name:
        raise CheckpointError(f"{newer}: a default prompt for pairs isn't supported; take its name away to serve it so")
    labels = _labels(config)
    independent = config.problem_type == "multi_label_classification"
    independent |= "Sigmoid" in refuse_other_scores(folder, config, len(labels))
    # What was a language model is still asked the same question; only the answer comes from a head of its own.
    judge = find_pair_prompt(config.model_type, *names) if len(labels) == 1 else None
    return msgspec.structs.replace(recipe, task="score", labels=labels, multi_label=independent, llm_reranker=judge)


def refuse_other_scores(folder: Path, config: ModelConfig, labels: int) -> set[str]:
    """Name the activations that the folder's files ask for. Raises CheckpointError for one that isn't known."""
    file, newer = folder / "config.json", folder / PROMPTS_FILE
    older = config.sentence_transformers.get("activation_fn") or config.sbert_ce_default_activation_function
    allowed = _SINGLE if labels == 1 else _SEVERAL
    said = set()
    for place, named in ((newer, read_optional_json(newer, PromptsConfig).activation_fn), (file, older)):
        activation = str(named).rpartition(".")[2] if named else None
        if activation and activation not in allowed:
            raise CheckpointError(f"{place}: the activation {named} is none of: {', '.join(sorted(allowed))}")
        said |= {activation} if activation else set()
    return said


def _labels(config: ModelConfig) -> tuple[str, ...]:
    """Name the labels in the order of the logits; transformers' own default is two."""
    named = config.id2label or {}
    count = config.labels or len(named) or 2
    return tuple(named.get(str(at), f"LABEL_{at}") for at in range(count))
