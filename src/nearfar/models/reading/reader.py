"""Reads a checkpoint's folder into a Recipe, from the JSON files of transformers and sentence-transformers.

Never loads weights, never runs code.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from nearfar.core.errors import CheckpointError
from nearfar.core.types import Task
from nearfar.models.files.config import (
    PROMPTS_FILE,
    ModelConfig,
    PromptsConfig,
    TokenizerConfig,
)
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.reading.causal_rerankers import find_pair_prompt, read_llm_reranker
from nearfar.models.reading.embedders import read_embedder
from nearfar.models.reading.refusals import refuse_no_model, refuse_pickles, refuse_unsupported
from nearfar.models.reading.transformer_options import LOADING, read_max_tokens, read_model_config, read_sentence_config
from nearfar.models.recipe.recipe import Recipe

# With one label both mean the same here: engines return the logit, and a score is its sigmoid.
_SINGLE_LABEL = {"Sigmoid", "Identity"}
_SEVERAL_LABELS = {"Sigmoid", "Identity", "Softmax"}


def read_recipe(folder: Path, max_tokens: int | None = None, name: str = "", task: Task | None = None) -> Recipe:
    """Read the folder's files into a Recipe.

    ``max_tokens`` overrides the limit that the files state. ``name``, by default the folder's, identifies the model's
    family for what the files don't state. ``task`` decides for a model that has two uses: a language model may embed or
    rerank, a masked language model return dense or sparse vectors.

    Raises CheckpointError, naming the file and the way out, for a missing or damaged file and for anything that isn't
    supported.
    """
    refuse_no_model(folder)
    sentence = read_sentence_config(folder)
    config = read_model_config(folder, sentence.config_options)
    names = (name or folder.name, config.name or "")
    refuse_unsupported(folder, config, names[0])
    refuse_pickles(folder)
    tokenizer = read_optional_json(folder / "tokenizer_config.json", TokenizerConfig)
    recipe = Recipe(
        architecture=(config.architectures or ["unknown"])[0],
        model_type=config.model_type,
        task="embed",
        max_tokens=read_max_tokens(folder, config, sentence, max_tokens, names[0]),
        hidden_size=config.hidden_size or config.n_embd or config.d_model or config.dim or 0,
        lower_case=sentence.do_lower_case,
        pad_token_id=config.padding,
        type_ids=_has_type_ids(config, tokenizer),
        quantized=config.quantization is not None,
        config_options={name: value for name, value in sentence.config_options.items() if name not in LOADING},
    )
    if recipe.architecture.endswith("ForSequenceClassification"):
        return _read_classifier(folder, config, recipe, names)
    if not recipe.hidden_size:
        raise CheckpointError(f"{folder / 'config.json'}: has no hidden_size")
    reranker = None if task == "embed" else read_llm_reranker(folder, config, names, task)
    if reranker:
        _check_activations(folder, config, 1)
        return msgspec.structs.replace(recipe, task="score", llm_reranker=reranker)
    return read_embedder(folder, config, recipe, sentence, names=names, task=task)


def _has_type_ids(config: ModelConfig, tokenizer: TokenizerConfig) -> bool:
    """Return whether the model distinguishes the two texts of a pair, and its tokenizer may mark them."""
    types = config.type_vocab_size
    if types is None:
        types = 2 if config.model_type in {"bert", "electra"} else 1  # transformers' defaults
    return types > 1 and (tokenizer.model_input_names is None or "token_type_ids" in tokenizer.model_input_names)


def _read_classifier(folder: Path, config: ModelConfig, recipe: Recipe, names: tuple[str, ...]) -> Recipe:
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
    multi_label |= "Sigmoid" in _check_activations(folder, config, len(labels))
    # A language model that was converted to a classifier keeps its prompt.
    reranker = find_pair_prompt(config.model_type, *names) if len(labels) == 1 else None
    return msgspec.structs.replace(recipe, task="score", labels=labels, multi_label=multi_label, llm_reranker=reranker)


def _check_activations(folder: Path, config: ModelConfig, labels: int) -> set[str]:
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
