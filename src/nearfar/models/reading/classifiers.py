"""Reads cross-encoders and classifiers: their labels, and how logits become scores."""

from __future__ import annotations

from pathlib import Path

import msgspec

from nearfar.core.errors import CheckpointError
from nearfar.models.files.chat_template import ChatTemplateError, has_chat_template, render_pair
from nearfar.models.files.config import PROMPTS_FILE, ModelConfig, PromptsConfig, SentenceConfig
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.files.safetensors import HEAD, find_shapes
from nearfar.models.reading.causal_rerankers import find_pair_prompt
from nearfar.models.reading.modules import Module, has_score_layer, read_modules
from nearfar.models.recipe.recipe import LlmReranker, Recipe

# With one label the first two mean the same here: engines return the logit, and a score is its sigmoid.
_SINGLE_LABEL = {"Sigmoid", "Identity", "Tanh"}
_SEVERAL_LABELS = {"Sigmoid", "Identity", "Softmax"}
_ARCHITECTURE = "ForSequenceClassification"


def is_classifier(folder: Path, config: ModelConfig, sentence: SentenceConfig, modules: list[Module] | None) -> bool:
    """Return whether the folder has a cross-encoder or a classifier, by its config, its marks or its steps.

    Raises CheckpointError for a classifier's weights that nothing in the folder accounts for: the library would drop
    them silently.
    """
    if modules:
        pooled = any(module.kind == "Pooling" for module in modules)
        return has_score_layer(folder, modules) or (
            not pooled and sentence.transformer_task == "sequence-classification"
        )
    architecture = next(iter(config.architectures or ()), "")
    if architecture.endswith(_ARCHITECTURE):
        return True
    prompts = read_optional_json(folder / PROMPTS_FILE, PromptsConfig)
    marked = prompts.model_type == "CrossEncoder" or config.sentence_transformers.get("activation_fn")
    if not architecture and (marked or config.sbert_ce_default_activation_function):
        return True
    head = next((name for name in find_shapes(folder) if HEAD.match(name)), None)
    if head is None:
        return False
    if architecture:
        raise CheckpointError(
            f"{folder}: is a {architecture}, and its {head} is of no use for vectors or scores; serve the model that "
            "it was made from, or add the modules.json of an embedding model"
        )
    raise CheckpointError(
        f"{folder / 'config.json'}: has no architectures, but the weights have {head}; add "
        f'"architectures" with the class of {config.model_type} that ends in {_ARCHITECTURE}, to serve its scores'
    )


def read_classifier(
    folder: Path, config: ModelConfig, recipe: Recipe, sentence: SentenceConfig, names: tuple[str, ...]
) -> Recipe:
    """Return the recipe with the labels, and with how their logits become scores.

    ``folder`` has modules.json, if there is one. Raises CheckpointError for an unsupported activation or prompt.
    """
    labels = _read_labels(config)
    if recipe.layers:  # of a pooled vector
        labels = tuple(f"LABEL_{at}" for at in range(recipe.layers[-1].out_features))  # type: ignore[union-attr]
    activation = read_activation(folder, config, len(labels))
    prompts = _read_prompts_file(folder)
    reranker = _find_prompt(folder, config, sentence, names) if len(labels) == 1 and not recipe.pooling else None
    if "message" in sentence.modality_config and not reranker:
        raise CheckpointError(
            f"{folder}: its texts go through a chat template, which isn't supported for several labels; use a model "
            "without a message in modality_config"
        )
    default = None if reranker else prompts.default_prompt_name
    return msgspec.structs.replace(
        recipe,
        task="score",
        labels=labels,
        multi_label=config.problem_type == "multi_label_classification" or activation == "Sigmoid",
        activation="Tanh" if activation == "Tanh" else "Sigmoid",
        llm_reranker=reranker,
        pair_prompt=(prompts.prompts or {}).get(default, "") if default else "",
    )


def read_activation(folder: Path, config: ModelConfig, labels: int) -> str | None:
    """Return the name of the activation, the first that is stated. Raises CheckpointError for an unsupported one."""
    supported = _SINGLE_LABEL if labels == 1 else _SEVERAL_LABELS
    older = config.sentence_transformers.get("activation_fn", config.sbert_ce_default_activation_function)
    newer = _read_prompts_file(folder).activation_fn
    file, stated = (PROMPTS_FILE, newer) if newer else ("config.json", older)
    if not stated:
        return None
    activation = str(stated).rpartition(".")[2]
    if activation not in supported:
        choices = ", ".join(sorted(supported))
        raise CheckpointError(
            f"{folder / file}: the activation {stated} isn't supported; these are: {choices}; set one of them there to "
            "serve scores with it"
        )
    return activation


def _read_prompts_file(folder: Path) -> PromptsConfig:
    """Read the file; return its defaults where sentence-transformers ignores it, which is without modules.json."""
    return PromptsConfig() if read_modules(folder) is None else read_optional_json(folder / PROMPTS_FILE, PromptsConfig)


def _find_prompt(
    folder: Path, config: ModelConfig, sentence: SentenceConfig, names: tuple[str, ...]
) -> LlmReranker | None:
    """Return the prompt of a language model that was converted to a classifier, None if it reads plain pairs.

    sentence-transformers renders pairs with a chat template if sentence_bert_config.json has one; without that file,
    if the tokenizer has one.
    """
    known = find_pair_prompt(config.model_type, *names)
    if not sentence.modality_config and (known or read_modules(folder) or not has_chat_template(folder)):
        return known
    if sentence.modality_config and "message" not in sentence.modality_config:
        return None
    try:
        return LlmReranker(render_pair(folder))
    except ChatTemplateError as error:
        if known:
            return known
        raise CheckpointError(
            f"{folder}: a chat template goes around its pairs, but {error}; add the template that it was trained with, "
            "or remove the template to serve plain pairs"
        ) from error


def _read_labels(config: ModelConfig) -> tuple[str, ...]:
    """Return the labels in the order of the logits; transformers' default is two.

    sentence-transformers' is one where config.json names no class.
    """
    names = config.id2label or {}
    count = config.labels or len(names) or (2 if config.architectures else 1)
    return tuple(str(names.get(str(at), f"LABEL_{at}")) for at in range(count))
