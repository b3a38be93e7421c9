"""A checkpoint's folder → Recipe: everything between a text and its vector, or a pair and its score.

Reads the JSON files that transformers and sentence-transformers write; never weights, never code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import SENTENCE_FILES, ModelConfig, SentenceConfig, TokenizerConfig
from nearfar.models.files.json_files import read_json, read_optional_json
from nearfar.models.reading.causal_rerankers import read_llm_reranker
from nearfar.models.reading.classifiers import read_classifier, refuse_other_scores
from nearfar.models.reading.defaults import default_max_tokens
from nearfar.models.reading.embedders import read_embedder
from nearfar.models.reading.families import find_family
from nearfar.models.reading.modules import find_logit_score
from nearfar.models.reading.refusals import refuse_no_model, refuse_pickles, refuse_unfit
from nearfar.models.recipe.recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.core.types import Task

# These start counting positions after the padding id, so the table has that many rows no text can use
# (padding_idx + 1 in transformers' modeling files of the RoBERTa family and MPNet).
_OFFSET_POSITIONS = frozenset(
    (
        "camembert",
        "data2vec-text",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    )
)
_UNLIMITED = 1_000_000  # tokenizers without a limit say 1e30


def read_recipe(folder: Path, max_tokens: int | None = None, name: str = "", task: Task | None = None) -> Recipe:
    """Read the folder's files into a Recipe; ``max_tokens`` overrules the limit that the files state.

    ``name`` is what the model is called, by default as its folder. It tells the family where the files don't. ``task``
    decides where they may be read in two ways: a language model may embed or judge, one that guesses words embed or
    weigh them.

    Raises CheckpointError, naming the file and the way out, for a file that is missing or damaged and for
    anything in the folder that can't be honoured.
    """
    refuse_no_model(folder)
    config = read_json(folder / "config.json", ModelConfig)
    names = (name or folder.name, config.name or "")
    refuse_unfit(folder, config, names[0])
    refuse_pickles(folder)
    sentence = _read_sentence(folder)
    tokenizer = read_optional_json(folder / "tokenizer_config.json", TokenizerConfig)
    stated = sentence.max_seq_length or default_max_tokens(folder, find_family(names[0]), tokenizer.model_max_length)
    recipe = Recipe(
        architecture=(config.architectures or ["unknown"])[0],
        model_type=config.model_type,
        task="embed",
        max_tokens=_max_tokens(folder, config, stated, max_tokens),
        hidden_size=config.hidden_size or config.n_embd or config.d_model or config.dim or 0,
        lower_case=sentence.do_lower_case,
        pad_token_id=config.padding,
        type_ids=_type_ids(config, tokenizer),
        quantized=config.quantization is not None,
    )
    if recipe.architecture.endswith("ForSequenceClassification"):
        return read_classifier(folder, config, recipe, names)
    if not recipe.hidden_size:
        raise CheckpointError(f"{folder / 'config.json'}: states no hidden_size")
    judge = None if task == "embed" else read_llm_reranker(folder, config.model_type, *names)
    if judge:
        refuse_other_scores(folder, config, 1)
        return msgspec.structs.replace(recipe, task="score", llm_reranker=judge)
    return read_embedder(folder, config, recipe, sentence, names=names, task=task)


def _read_sentence(folder: Path) -> SentenceConfig:
    file = next((folder / name for name in SENTENCE_FILES if (folder / name).is_file()), folder / SENTENCE_FILES[0])
    sentence = read_optional_json(file, SentenceConfig)
    if sentence.unsupported and not find_logit_score(
        folder
    ):  # a language model's options are read with its chat template
        raise CheckpointError(f"{file}: {sentence.unsupported} isn't supported")
    return sentence


def _type_ids(config: ModelConfig, tokenizer: TokenizerConfig) -> bool:
    """Tell whether the model was built with types for the two texts of a pair, and its tokenizer gives them."""
    types = config.type_vocab_size
    if types is None:
        types = 2 if config.model_type in {"bert", "electra"} else 1  # their configurations' own default
    return types > 1 and (tokenizer.model_input_names is None or "token_type_ids" in tokenizer.model_input_names)


def _max_tokens(folder: Path, config: ModelConfig, stated: float | None, asked: int | None) -> int:
    """Take the limit as sentence-transformers does, special tokens included, but never past the positions."""
    limits = [float(stated)] if stated else []
    positions = config.max_position_embeddings or config.n_positions
    if positions:
        padding = 1 if config.padding is None else config.padding  # 1 is the RoBERTa family's default
        positions -= padding + 1 if config.model_type in _OFFSET_POSITIONS else 0
        limits.append(positions)
    if asked and positions and asked > positions:
        raise CheckpointError(
            f"{folder}: max_tokens = {asked} is over the {positions} positions the model was built with"
        )
    limit = asked or min(limits, default=_UNLIMITED)
    if limit >= _UNLIMITED:
        raise CheckpointError(f"{folder}: none of its files states a limit in tokens; set max_tokens for this model")
    return int(limit)
