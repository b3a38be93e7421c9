"""Reads sentence_bert_config.json: how sentence-transformers loads and calls its transformer and tokenizer.

An option that would change numbers is honored or refused by its name. The limit in tokens follows from these options,
the tokenizer's own, and the positions that the model has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import ModelConfig, SentenceConfig, TokenizerConfig, find_sentence_file
from nearfar.models.files.json_files import convert, read_json, read_optional_json
from nearfar.models.files.safetensors import find_dtype, find_shapes
from nearfar.models.reading.families import default_max_tokens, find_family
from nearfar.models.recipe.recipe import ENCODERS

# By task: the output that is taken from the transformer, and the name under which the next step finds it.
_OUTPUTS = {
    "feature-extraction": ("last_hidden_state", "token_embeddings"),
    "fill-mask": ("logits", "token_embeddings"),
    "sequence-classification": ("logits", "scores"),
    "text-generation": ("logits", "causal_logits"),
}
# Arguments of from_pretrained for where files are, how they are loaded, and in which precision.
LOADING = {
    *("attn_implementation", "cache_dir", "code_revision", "device_map", "dtype", "force_download"),
    *("local_files_only", "low_cpu_mem_usage", "revision", "token", "torch_dtype", "trust_remote_code"),
    *("use_auth_token", "use_fast", "use_safetensors", "add_pooling_layer", "use_cache", "proxies", "weights_only"),
}
# Arguments of a call of the tokenizer that change no ids of a text that is alone, and their other values.
_CALLING = frozenset(("padding", "pad_to_multiple_of", "padding_side", "return_tensors", "logits_to_keep"))
_TRUNCATING = (True, "longest_first")
# These count positions from padding_idx + 1, so that many rows of the position table are unusable. A test derives the
# list from transformers.
OFFSET_POSITIONS = {
    *("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet"),
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
}
# torch's names of precisions, and those below float32.
_ROUNDINGS: dict[str, Literal["float16", "bfloat16"] | None] = {
    **dict.fromkeys(("float32", "float", "float64", "double")),
    "bfloat16": "bfloat16",
    "float16": "float16",
    "half": "float16",
}
# A table with a row for each position; models without one (rotary, ALiBi, relative) run beyond their positions.
_POSITION_TABLE = re.compile(r"(^|\.)(position_embeddings?|positions_embed|embed_positions|wpe|w_pe)\.weight$")
_UNLIMITED = 1_000_000  # tokenizers without a limit have a model_max_length of 1e30


def read_sentence_config(folder: Path) -> SentenceConfig:
    """Read the file. Raises CheckpointError for an option that isn't supported."""
    file = find_sentence_file(folder)
    config = read_optional_json(file, SentenceConfig)
    if config.tokenizer_name_or_path:
        raise CheckpointError(
            f"{file}: tokenizer_name_or_path takes the tokenizer from {config.tokenizer_name_or_path}, which isn't "
            "supported; copy its files into the folder, and remove the option"
        )
    _check_outputs(file, config)
    for name, value in config.model_options.items():
        if name not in LOADING and value is not None:
            raise CheckpointError(
                f"{file}: model_kwargs has {name}, which isn't supported; remove it, or set it in code"
            )
    for name, value in config.config_options.items():
        if isinstance(value, dict):
            raise CheckpointError(f"{file}: config_kwargs has {name}, which isn't supported; write it into config.json")
    for kind in ("common", "text"):
        _check_call(file, kind, config.processing_kwargs.get(kind, {}))
    return config


def read_model_config(folder: Path, options: dict[str, Any]) -> ModelConfig:
    """Read config.json, with the values of ``options`` in place of its own."""
    file = folder / "config.json"
    if not options:
        return read_json(file, ModelConfig)
    return convert(file, read_json(file, dict[str, Any]) | options, ModelConfig)


def read_rounding(folder: Path, sentence: SentenceConfig) -> Literal["float16", "bfloat16"] | None:
    """Return the precision below float32 to which transformers rounds the weights at loading, None if it doesn't.

    By default it is config.json's, else that of the weights. How quantized weights are read is left to each engine.
    Raises CheckpointError for an unknown one.
    """
    config = read_json(folder / "config.json", dict[str, Any])
    if "quantization" in config or "quantization_config" in config:
        return None
    options = (sentence.model_options, sentence.config_options, config)
    called, *files = (option.get("dtype") or option.get("torch_dtype") for option in options)
    stated = (None if called == "auto" else called, *files)  # transformers reads "auto" only as an argument
    dtype = next(filter(None, stated), None) or find_dtype(folder)
    if dtype is None:
        return None
    if not isinstance(dtype, str) or dtype not in _ROUNDINGS:
        raise CheckpointError(
            f"{folder / 'config.json'}: the weights' dtype {str(dtype)[:50]!r} isn't one of "
            f"{', '.join(_ROUNDINGS)}; set one there"
        )
    return _ROUNDINGS[dtype]


def called_max_length(config: SentenceConfig) -> int | None:
    """Return the limit in tokens with which the tokenizer is called, None if it has its own."""
    calls = [config.processing_kwargs.get(kind, {}) for kind in ("chat_template", "common", "text")]
    return next((int(call["max_length"]) for call in calls if call.get("max_length")), None)


def _check_outputs(file: Path, config: SentenceConfig) -> None:
    """Raise CheckpointError unless texts go through ``forward`` and the task's usual output is taken."""
    task = config.transformer_task
    if task not in _OUTPUTS:
        raise CheckpointError(
            f"{file}: transformer_task = {task} isn't supported, only {', '.join(_OUTPUTS)}; use a model of these"
        )
    usual, name = _OUTPUTS[task]
    other = f"use a model that pools {usual}" if task == "feature-extraction" else "use a model with the usual output"
    if config.module_output_name not in {None, name}:
        raise CheckpointError(f"{file}: module_output_name = {config.module_output_name} isn't supported; {other}")
    read = {kind: how for kind, how in config.modality_config.items() if kind in {"text", "message"}}
    if config.modality_config and not read:
        kinds = ", ".join(config.modality_config)
        raise CheckpointError(f"{file}: the model reads {kinds}, not text; use one with text in its modality_config")
    for how in read.values():
        output = how.get("method_output_name", usual)
        if output not in (usual, [usual]) or how.get("method", "forward") != "forward":
            raise CheckpointError(f"{file}: the output {output} of {how.get('method')} isn't supported; {other}")


def _check_call(file: Path, kind: str, options: Mapping[str, Any]) -> None:
    """Raise CheckpointError for an argument that would change a text's ids."""
    for name, value in options.items():
        usual = name in _CALLING or name == "max_length" or (name == "truncation" and value in _TRUNCATING)
        if not usual:
            raise CheckpointError(
                f"{file}: processing_kwargs has {kind}.{name} = {value!r}, which isn't supported; remove it to serve "
                "the model without"
            )


def read_max_tokens(
    folder: Path, config: ModelConfig, sentence: SentenceConfig, override: int | None, name: str
) -> int:
    """Return the limit as sentence-transformers computes it, special tokens included.

    A stated limit may exceed the positions of a model without a position table. Raises CheckpointError if there is no
    limit, or if ``override`` exceeds the table.
    """
    tokenizer = read_optional_json(folder / "tokenizer_config.json", TokenizerConfig)
    has_table = _has_position_table(folder)
    positions = _positions(config, has_table=has_table)
    stated = called_max_length(sentence) or sentence.tokenizer_options.get("model_max_length", sentence.max_seq_length)
    own = default_max_tokens(folder, find_family(name), tokenizer.model_max_length or tokenizer.max_len)
    limits = [float(limit) for limit in ([stated] if stated else [own, positions]) if limit and not math.isnan(limit)]
    if positions is not None and has_table:
        limits.append(positions)
    if override and positions and has_table and override > positions:
        raise CheckpointError(f"{folder}: max_tokens = {override} exceeds the model's {positions} positions")
    limit = override or min(limits, default=_UNLIMITED)
    if limit >= _UNLIMITED:
        raise CheckpointError(f"{folder}: none of its files states a limit in tokens; set max_tokens for this model")
    return int(limit)


def _positions(config: ModelConfig, *, has_table: bool) -> int | None:
    """Return how many tokens config.json's positions are for; None without a number, which -1 is for XLNet.

    T5's n_positions isn't used: its positions are relative. ESM has a table only without rotary positions.
    """
    rows = config.max_position_embeddings or (None if config.model_type in ENCODERS else config.n_positions)
    if rows is None or rows <= 0:
        return None
    padding = 1 if config.padding is None else config.padding  # 1 is the RoBERTa family's default
    return rows - (padding + 1 if has_table and config.model_type in OFFSET_POSITIONS else 0)


def _has_position_table(folder: Path) -> bool:
    """Return whether the weights have a table of positions; True if they can't be read, which is refused later."""
    shapes = find_shapes(folder)
    return not shapes or any(_POSITION_TABLE.search(name) for name in shapes)
