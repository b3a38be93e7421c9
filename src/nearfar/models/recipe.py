"""A checkpoint's folder → Recipe: everything between a text and its vector, or a pair and its score.

Reads the JSON files that transformers and sentence-transformers write; never weights, never code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from nearfar.errors import CheckpointError
from nearfar.models.configs import SENTENCE_FILES, Config, Prompts, Sentence, Tokenizer
from nearfar.models.families import Known, known_by
from nearfar.models.files import read_json, read_json_if_there
from nearfar.models.judging import Judge, find_judge, find_question
from nearfar.models.modules import Dense, Pooled, Pooling, Steps, read_steps, score_folder
from nearfar.models.refusals import refuse_ignored, refuse_pickles

if TYPE_CHECKING:
    from pathlib import Path

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
_PROMPTS_FILE = "config_sentence_transformers.json"
_UNLIMITED = 1_000_000  # tokenizers without a limit say 1e30


class Recipe(Struct, frozen=True, kw_only=True):
    """How a checkpoint is to be run. The same on every engine.

    ``pooling`` has one mode, or several whose results are joined in order; it is empty for a cross-encoder.
    ``max_tokens`` counts special tokens. ``prompts`` are prefixes by name; ``default_prompt`` names the one, or the
    role whose one is put before a text whose caller chose none. ``type_ids`` says whether the second text of a pair is
    marked as such. ``judge`` is there for a reranker that is a language model; ``quantized`` tells of weights in MLX's
    own way.
    """

    architecture: str
    model_type: str
    task: Literal["embed", "score"]
    max_tokens: int
    hidden_size: int
    pooling: tuple[Pooling, ...] = ()
    pooling_source: str = ""
    dense: tuple[Dense, ...] = ()
    normalize: bool = False
    prompts: dict[str, str] = {}
    default_prompt: str | None = None
    lower_case: bool = False
    pad_token_id: int | None = None
    type_ids: bool = False
    judge: Judge | None = None
    quantized: bool = False

    @property
    def speaks(self) -> bool:
        """Tell whether a language model answers: yes or no, as the next token."""
        return self.judge is not None and self.judge.answer is not None

    @property
    def dim(self) -> int:
        """Length of a vector, after pooling and any Dense layers; 0 for a cross-encoder."""
        if self.task == "score":
            return 0
        return self.dense[-1].out_features if self.dense else self.hidden_size * len(self.pooling)


def read_recipe(folder: Path, max_tokens: int | None = None, name: str = "") -> Recipe:
    """Read the folder's files into a Recipe; ``max_tokens`` overrules the limit that the files state.

    ``name`` is what the model is called, by default as its folder. It tells the family where the files don't.

    Raises CheckpointError, naming the file and the way out, for a file that is missing or damaged and for
    anything in the folder that can't be honoured.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: has no config.json, so it isn't a transformers or sentence-transformers model"
        )
    config = read_json(folder / "config.json", Config)
    refuse_pickles(folder)
    refuse_ignored(folder, config)
    sentence = _read_sentence(folder)
    tokenizer = read_json_if_there(folder / "tokenizer_config.json", Tokenizer)
    stated = sentence.max_seq_length or tokenizer.model_max_length
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
    names = (name or folder.name, config.name or "")
    if recipe.architecture.endswith("ForSequenceClassification"):
        recipe = _cross_encoder(folder, config, recipe)
        # What was a language model is still asked the same question; only the answer comes from a head of its own.
        return msgspec.structs.replace(recipe, judge=find_question(config.model_type, *names))
    if not recipe.hidden_size:
        raise CheckpointError(f"{folder / 'config.json'}: states no hidden_size")
    if judge := find_judge(folder, config.model_type, *names):
        _refuse_other_scores(folder, config)
        return msgspec.structs.replace(recipe, task="score", judge=judge)
    return _embedder(folder, config, recipe, names)


def _embedder(folder: Path, config: Config, recipe: Recipe, names: tuple[str, str]) -> Recipe:
    """Add what makes vectors of hidden states, from the folder's files or as the family is known by its names."""
    # A model tuned further pools as it did, but not what was put before its texts: prompts go by its own name alone.
    recipe = _with_prompts(folder, recipe, known_by(names[0]))
    known = known_by(*names)
    if known and known.pooling != "lasttoken" and not known.has_more and config.model_type in _DECODERS:
        known = None  # a family's later, larger members: bge-en-icl is no BERT
    usual = Pooled(known.pooling, f"as {known.source}, by its name") if known and not known.has_more else None
    steps = read_steps(folder, recipe.hidden_size, usual) or _usual_steps(folder, config, known)
    return msgspec.structs.replace(
        recipe,
        pooling=steps.pooling,
        pooling_source=steps.source,
        dense=steps.dense,
        normalize=steps.normalize,
    )


def _read_sentence(folder: Path) -> Sentence:
    file = next((folder / name for name in SENTENCE_FILES if (folder / name).is_file()), folder / SENTENCE_FILES[0])
    sentence = read_json_if_there(file, Sentence)
    if sentence.unusual and not score_folder(folder):  # a language model's options are read with its chat template
        raise CheckpointError(f"{file}: {sentence.unusual} isn't supported")
    return sentence


def _cross_encoder(folder: Path, config: Config, recipe: Recipe) -> Recipe:
    file = folder / "config.json"
    labels = config.labels or len(config.id2label or {}) or 2  # transformers' own default is 2
    if labels != 1:
        raise CheckpointError(f"{file}: a classifier with {labels} labels; only rerankers, which have 1, are served")
    newer = folder / _PROMPTS_FILE
    if read_json_if_there(newer, Prompts).default_prompt_name:
        raise CheckpointError(f"{newer}: a default prompt for pairs isn't supported")
    _refuse_other_scores(folder, config)
    return msgspec.structs.replace(recipe, task="score")


def _refuse_other_scores(folder: Path, config: Config) -> None:
    """Refuse a score that is neither the logit nor its sigmoid, which mean the same to us: the head gives a logit."""
    file, newer = folder / "config.json", folder / _PROMPTS_FILE
    older = config.sentence_transformers.get("activation_fn") or config.sbert_ce_default_activation_function
    for place, named in ((newer, read_json_if_there(newer, Prompts).activation_fn), (file, older)):
        if named and str(named).rpartition(".")[2] not in {"Sigmoid", "Identity"}:
            raise CheckpointError(f"{place}: the activation {named} is neither Sigmoid nor Identity")


def _with_prompts(folder: Path, recipe: Recipe, known: Known | None) -> Recipe:
    file = folder / _PROMPTS_FILE
    if known and not file.is_file():
        return msgspec.structs.replace(recipe, prompts=known.prompts)
    named = read_json_if_there(file, Prompts)
    if named.default_prompt_name and named.default_prompt_name not in named.prompts:
        raise CheckpointError(f"{file}: the default prompt {named.default_prompt_name!r} isn't among the prompts")
    prompts = {name: prompt for name, prompt in named.prompts.items() if prompt}
    default = named.default_prompt_name if named.default_prompt_name in prompts else None
    return msgspec.structs.replace(recipe, prompts=prompts, default_prompt=default)


def _usual_steps(folder: Path, config: Config, known: Known | None) -> Steps:
    """Give a folder without modules.json the pooling of its family, and say how that is known."""
    if known and known.has_more:
        raise CheckpointError(f"{folder}: has no modules.json, and {known.source} has more layers than its pooling")
    if known:
        source = f"as {known.source}, by its name; the folder has no modules.json"
        return Steps(pooling=(known.pooling,), source=source, dense=(), normalize=True)
    pooling: Pooling = "lasttoken" if config.model_type in _DECODERS else "mean"
    kind = "decoders" if pooling == "lasttoken" else "encoders"
    source = f"default for {kind}; the folder has no modules.json"
    return Steps(pooling=(pooling,), source=source, dense=(), normalize=True)


def _type_ids(config: Config, tokenizer: Tokenizer) -> bool:
    """Tell whether the model was built with types for the two texts of a pair, and its tokenizer gives them."""
    types = config.type_vocab_size
    if types is None:
        types = 2 if config.model_type in {"bert", "electra"} else 1  # their configurations' own default
    return types > 1 and (tokenizer.model_input_names is None or "token_type_ids" in tokenizer.model_input_names)


def _max_tokens(folder: Path, config: Config, stated: float | None, asked: int | None) -> int:
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
