"""Reads a checkpoint's folder into a Recipe, from the JSON files of transformers and sentence-transformers.

Never loads weights, never runs code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from nearfar.core.errors import CheckpointError
from nearfar.core.types import Task
from nearfar.models.files.chat_template import read_chat
from nearfar.models.files.config import PROMPTS_FILE, ModelConfig, SentenceConfig, TokenizerConfig, find_sentence_file
from nearfar.models.files.config_sizes import refuse_absurd_sizes
from nearfar.models.files.json_files import read_json, read_optional_json
from nearfar.models.files.safetensors import find_shapes
from nearfar.models.reading.causal_rerankers import read_llm_reranker
from nearfar.models.reading.classifiers import is_classifier, read_activation, read_classifier
from nearfar.models.reading.embedders import read_embedder
from nearfar.models.reading.modules import has_score_layer, module_folder, read_modules, read_steps
from nearfar.models.reading.refusals import refuse_no_model, refuse_other_models, refuse_pickles, refuse_unsupported
from nearfar.models.reading.transformer_options import (
    LOADING,
    read_max_tokens,
    read_model_config,
    read_rounding,
    read_sentence_config,
)
from nearfar.models.recipe.recipe import Recipe

_TYPES = "token_type_embeddings.weight"


def read_recipe(folder: Path, max_tokens: int | None = None, name: str = "", task: Task | None = None) -> Recipe:
    """Read the folder's files into a Recipe.

    ``max_tokens`` overrides the limit that the files state. ``name``, by default the folder's, identifies the model's
    family for what the files don't state. ``task`` decides for a model that has two uses: a language model may embed or
    rerank, a masked language model return dense or sparse vectors.

    Raises CheckpointError, naming the file and the way out, for a missing or damaged file and for anything that isn't
    supported.
    """
    modules = read_modules(folder)
    refuse_other_models(folder, modules or [])
    subfolder = modules[0].path if modules else ""
    inner = module_folder(folder, subfolder)
    refuse_no_model(inner)
    sentence = read_sentence_config(inner)
    config = read_model_config(inner, sentence.config_options)
    names = (name or folder.name, config.name or "")
    refuse_unsupported(folder, inner, config, names[0])
    refuse_pickles(inner)
    refuse_absurd_sizes(inner, read_json(inner / "config.json", dict[str, Any]) | sentence.config_options)
    classifies = is_classifier(folder, config, sentence, modules)
    if classifies and modules is None:
        sentence = _unread_options(inner, sentence)
    recipe = _read_transformer(inner, config, sentence, max_tokens, names[0])
    recipe = msgspec.structs.replace(recipe, subfolder=subfolder)
    if classifies:
        scored = read_steps(folder, recipe) if has_score_layer(folder, modules) else None
        return _refuse_left_out(folder, read_classifier(folder, config, scored or recipe, sentence, names))
    if not recipe.hidden_size:
        raise CheckpointError(
            f"{inner / 'config.json'}: has no hidden_size; add it, the number of values that the model computes a token"
        )
    reranker = None if task == "embed" else read_llm_reranker(folder, config, sentence, names, task)
    if reranker:
        activation = "Tanh" if read_activation(folder, config, 1) == "Tanh" else "Sigmoid"
        return msgspec.structs.replace(recipe, task="score", llm_reranker=reranker, activation=activation)
    embedder = read_embedder(folder, config, recipe, sentence, names=names, task=task)
    if "message" in sentence.modality_config:
        return _with_chat(inner, embedder)
    return _refuse_left_out(folder, embedder)


def _unread_options(folder: Path, sentence: SentenceConfig) -> SentenceConfig:
    """Return no options: sentence-transformers reads a cross-encoder's only beside modules.json.

    Raises CheckpointError for options of the tokenizer, which would be applied all the same.
    """
    if sentence.tokenizer_options:
        raise CheckpointError(
            f"{find_sentence_file(folder)}: has options for the tokenizer, which sentence-transformers ignores for a "
            "cross-encoder without modules.json; remove them, or add modules.json"
        )
    return SentenceConfig()


def _refuse_left_out(folder: Path, recipe: Recipe) -> Recipe:
    """Return the recipe. Raises CheckpointError if pooling without a prompt's tokens isn't supported.

    sentence-transformers pools them for a chat template, which has the prompt as a message.
    """
    if recipe.pools_prompt or not (recipe.prompts or recipe.pair_prompt):
        return recipe
    if recipe.can_leave_out_prompt and not recipe.pair_prompt:
        return recipe
    raise CheckpointError(
        f"{folder}: its Pooling has include_prompt = false, which leaves the prompt's tokens out and is only supported "
        f"for one vector a text that isn't a weighted mean; remove the prompts from {PROMPTS_FILE} to serve the model "
        "without, or use one that pools all tokens"
    )


def _with_chat(folder: Path, recipe: Recipe) -> Recipe:
    """Return the recipe with the chat template that texts go through. Raises CheckpointError if it isn't supported."""
    if recipe.multi_vector:
        raise CheckpointError(
            f"{folder}: its texts go through a chat template, which isn't supported for token vectors; use a model "
            "without a message in modality_config"
        )
    return msgspec.structs.replace(recipe, chat=read_chat(folder))


def _read_transformer(
    folder: Path, config: ModelConfig, sentence: SentenceConfig, max_tokens: int | None, name: str
) -> Recipe:
    """Read what the transformer and its tokenizer are, whatever follows them."""
    tokenizer = read_optional_json(folder / "tokenizer_config.json", TokenizerConfig)
    return Recipe(
        architecture=(config.architectures or ["unknown"])[0],
        model_type=config.model_type,
        task="embed",
        max_tokens=read_max_tokens(folder, config, sentence, max_tokens, name),
        hidden_size=config.hidden_size or config.n_embd or config.d_model or config.dim or config.emb_dim or 0,
        lower_case=bool(sentence.do_lower_case),
        pad_token_id=config.padding,
        type_ids=_has_type_ids(folder, config, tokenizer),
        quantized=config.quantization is not None,
        rounds_to=read_rounding(folder, sentence),
        config_options={name: value for name, value in sentence.config_options.items() if name not in LOADING},
    )


def _has_type_ids(folder: Path, config: ModelConfig, tokenizer: TokenizerConfig) -> bool:
    """Return whether the model distinguishes the two texts of a pair, and its tokenizer may mark them."""
    types = config.type_vocab_size
    if types is None:  # transformers' default differs by family, and the weights have as many rows
        types = max((shape[0] for name, shape in find_shapes(folder).items() if _TYPES in name), default=1)
    return types > 1 and (tokenizer.model_input_names is None or "token_type_ids" in tokenizer.model_input_names)
