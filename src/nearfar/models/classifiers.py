"""Sequence classifiers: cross-encoders, whose one label is how well a pair fits, and those of several labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nearfar.errors import CheckpointError
from nearfar.models.configs import Prompts
from nearfar.models.files import read_json_if_there
from nearfar.models.judging import QWEN3_RERANKER, is_qwen3_reranker

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.models.configs import Config
    from nearfar.models.recipe import Recipe

_PROMPTS_FILE = "config_sentence_transformers.json"
_SINGLE = {"Sigmoid", "Identity"}  # mean the same to us: the head gives a logit, and a score is its sigmoid
_SEVERAL = {"Sigmoid", "Identity", "Softmax"}


def with_labels(folder: Path, config: Config, recipe: Recipe, names: tuple[str, ...]) -> Recipe:
    """Add a classifier's labels, and how their logits become scores.

    Raises CheckpointError for an activation or a prompt that can't be honoured.
    """
    file, newer = folder / "config.json", folder / _PROMPTS_FILE
    labels = _labels(config)
    prompts = read_json_if_there(newer, Prompts)
    if prompts.default_prompt_name:
        raise CheckpointError(f"{newer}: a default prompt for pairs isn't supported")
    older = config.sentence_transformers.get("activation_fn") or config.sbert_ce_default_activation_function
    allowed = _SINGLE if len(labels) == 1 else _SEVERAL
    activations = {}
    for place, named in ((newer, prompts.activation_fn), (file, older)):
        activation = str(named).rpartition(".")[2] if named else None
        if activation and activation not in allowed:
            raise CheckpointError(f"{place}: the activation {named} is none of: {', '.join(sorted(allowed))}")
        activations[place] = activation
    independent = config.problem_type == "multi_label_classification" or "Sigmoid" in activations.values()
    judge = QWEN3_RERANKER if len(labels) == 1 and is_qwen3_reranker(config.model_type, *names) else None
    return msgspec.structs.replace(recipe, task="score", labels=labels, independent_labels=independent, judge=judge)


def _labels(config: Config) -> tuple[str, ...]:
    """Name the labels in the order of the logits; transformers' own default is two."""
    named = config.id2label or {}
    count = config.labels or len(named) or 2
    return tuple(named.get(str(at), f"LABEL_{at}") for at in range(count))
