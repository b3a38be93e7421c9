"""Reads sequence classifiers: cross-encoders, which have one label, and classifiers with several."""

from __future__ import annotations

from pathlib import Path

import msgspec

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import PROMPTS_FILE, ModelConfig, PromptsConfig
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.reading.causal_rerankers import find_pair_prompt
from nearfar.models.recipe.recipe import Recipe

# With one label both mean the same here: engines return the logit, and a score is its sigmoid.
_SINGLE_LABEL = {"Sigmoid", "Identity"}
_SEVERAL_LABELS = {"Sigmoid", "Identity", "Softmax"}


def read_classifier(folder: Path, config: ModelConfig, recipe: Recipe, names: tuple[str, ...]) -> Recipe:
    """Return the recipe with the labels, and with how their logits become scores.

    Raises CheckpointError for an unsupported activation or prompt.
    """
    file = folder / PROMPTS_FILE
    if read_optional_json(file, PromptsConfig).default_prompt_name:
        raise CheckpointError(
            f"{file}: default_prompt_name isn't supported for rerankers; remove it to serve without one"
        )
    labels = _read_labels(config)
    multi_label = config.problem_type == "multi_label_classification"
    multi_label |= "Sigmoid" in check_activations(folder, config, len(labels))
    # A language model that was converted to a classifier keeps its prompt.
    reranker = find_pair_prompt(config.model_type, *names) if len(labels) == 1 else None
    return msgspec.structs.replace(recipe, task="score", labels=labels, multi_label=multi_label, llm_reranker=reranker)


def check_activations(folder: Path, config: ModelConfig, labels: int) -> set[str]:
    """Return the activations that the folder's files state. Raises CheckpointError for an unsupported one."""
    supported = _SINGLE_LABEL if labels == 1 else _SEVERAL_LABELS
    older = config.sentence_transformers.get("activation_fn") or config.sbert_ce_default_activation_function
    newer = read_optional_json(folder / PROMPTS_FILE, PromptsConfig).activation_fn
    activations = set()
    for file, stated in ((PROMPTS_FILE, newer), ("config.json", older)):
        if not stated:
            continue
        activation = str(stated).rpartition(".")[2]
        if activation not in supported:
            choices = ", ".join(sorted(supported))
            raise CheckpointError(f"{folder / file}: the activation {stated} isn't supported; these are: {choices}")
        activations.add(activation)
    return activations


def _read_labels(config: ModelConfig) -> tuple[str, ...]:
    """Return the labels in the order of the logits; transformers' default is two."""
    names = config.id2label or {}
    count = config.labels or len(names) or 2
    return tuple(names.get(str(at), f"LABEL_{at}") for at in range(count))
