"""Reads models with one vector a token (ColBERT), in the three formats in which they are saved.

These are sentence-transformers' (MultiVectorMask in modules.json), PyLate's (model_type ColBERT) and Stanford's
(architecture HF_ColBERT, artifact.metadata).
"""

from __future__ import annotations

import math
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nearfar.core.errors import CheckpointError
from nearfar.core.types import Role
from nearfar.models.files.config import PROMPTS_FILE, ModelConfig, TokenizerConfig, find_sentence_file
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.files.safetensors import tensor_shapes
from nearfar.models.files.tokenizer.tokenizer_json import known_ids, open_tokenizer
from nearfar.models.reading.modules import (
    Module,
    module_folder,
    read_dense_layers,
    refuse_other_vectors,
    unsupported_steps,
)
from nearfar.models.recipe.dense import Dense
from nearfar.models.recipe.recipe import MultiVector, QueryExpansion, Recipe

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_VECTORS = "token_embeddings"
_QUERY_LENGTH = 32  # tokens of an expanded query, the ColBERT paper's default


_PYLATE_OPTIONS = (
    *("query_length", "document_length", "query_expansion", "do_query_expansion", "attend_to_expansion_tokens"),
    *("attend_to_mask_tokens", "query_prefix", "document_prefix", "skiplist_words"),
)


class _Expansion(Struct):
    strategy: Literal["fixed", "min"]
    length: int
    attend: bool = False
    token: str | None = None


class _Lengths(Struct):
    """Options of sentence_bert_config.json; PyLate has them in config_sentence_transformers.json."""

    query_length: int | None = None
    document_length: int | None = None
    query_expansion: _Expansion | UnsetType | None = UNSET


class _PromptsConfig(_Lengths):
    """config_sentence_transformers.json, with PyLate's options."""

    model_type: str | None = None
    prompts: dict[str, str | None] = {}
    query_prefix: str | None = None
    document_prefix: str | None = None
    do_query_expansion: bool | None = None
    attend_to_expansion_tokens: bool | UnsetType | None = UNSET
    attend_to_mask_tokens: bool = False  # Stanford's name of the same
    skiplist_words: list[str] | None = None

    def expansion(self) -> _Expansion | None:
        """Return PyLate's query expansion, which is on by default."""
        if self.query_expansion is not UNSET:
            return self.query_expansion
        if self.do_query_expansion is False:
            return None
        attend = self.attend_to_expansion_tokens
        attend = self.attend_to_mask_tokens if attend is UNSET else bool(attend)
        return _Expansion("fixed", self.query_length or _QUERY_LENGTH, attend)


class _Mask(Struct, forbid_unknown_fields=True):
    """The config.json of sentence-transformers' MultiVectorMask."""

    skiplist_words: list[str] = []
    skiplist_tasks: str | list[str] | None = None
    keep_only_token_ids: list[int] | None = None


class _StanfordConfig(Struct):
    """artifact.metadata, with the defaults of Stanford's ColBERT."""

    query_token_id: str = "[unused0]"  # noqa: S105 — a token of BERT's vocabulary
    doc_token_id: str = "[unused1]"  # noqa: S105
    query_maxlen: int = _QUERY_LENGTH
    doc_maxlen: int | None = None
    mask_punctuation: bool = True
    attend_to_mask_tokens: bool = False

    def as_pylate(self) -> _PromptsConfig:
        """Return the same in PyLate's options."""
        return _PromptsConfig(
            document_length=self.doc_maxlen,
            query_expansion=_Expansion("fixed", self.query_maxlen, self.attend_to_mask_tokens),
            query_prefix=f"{self.query_token_id} ",
            document_prefix=f"{self.doc_token_id} ",
            skiplist_words=None if self.mask_punctuation else [],
        )


def is_multi_vector(folder: Path, config: ModelConfig, modules: list[Module] | None) -> bool:
    """Return whether the folder has a model of this kind."""
    if any(module.kind == "MultiVectorMask" for module in modules or ()):
        return True
    model_type = read_optional_json(folder / PROMPTS_FILE, _PromptsConfig).model_type
    return model_type == "ColBERT" or "HF_ColBERT" in (config.architectures or ())


def read_multi_vector(folder: Path, config: ModelConfig, recipe: Recipe, modules: list[Module] | None) -> Recipe:
    """Return the recipe with how token vectors are computed. Raises CheckpointError for what isn't supported."""
    options = read_optional_json(folder / PROMPTS_FILE, _PromptsConfig)
    if modules is None:
        source = "artifact.metadata"
        options = read_optional_json(folder / source, _StanfordConfig).as_pylate()
        found, prompts = _read_pylate(folder, (_find_linear(folder, recipe.hidden_size),), options)
    else:
        dense = _read_dense(folder, recipe.hidden_size, modules)
        if options.model_type == "ColBERT":
            source = PROMPTS_FILE
            found, prompts = _read_pylate(folder, dense, options)
        else:
            source = "modules.json"
            _refuse_older_options(folder)
            found, prompts = _read_modules(folder, dense, modules), options.prompts
    window = config.local_attention or config.sliding_window
    if found.expansion and window and not found.expansion.attended and found.expansion.length > window // 2:
        found = msgspec.structs.replace(found, window=window)
    prompts = {name: prompt for name, prompt in prompts.items() if prompt}
    return msgspec.structs.replace(
        recipe,
        multi_vector=found,
        pooling_source=source,
        prompts=prompts,
        prompts_source=source if prompts else "",
    )


def _refuse_older_options(folder: Path) -> None:
    """Raise CheckpointError for PyLate's options beside sentence-transformers' own, which then reads both."""
    stated = read_optional_json(folder / PROMPTS_FILE, dict[str, Any])
    if older := next((option for option in _PYLATE_OPTIONS if option in stated), None):
        raise CheckpointError(
            f"{folder / PROMPTS_FILE}: {older} is PyLate's option, which isn't supported beside a MultiVectorMask; "
            f"remove it, or write it where sentence-transformers saves it: lengths and query_expansion to "
            "sentence_bert_config.json, words to the MultiVectorMask, prefixes to prompts"
        )


def _read_modules(folder: Path, dense: tuple[Dense, ...], modules: list[Module]) -> MultiVector:
    """Read sentence-transformers' format."""
    masks = [module_folder(folder, module.path) for module in modules if module.kind == "MultiVectorMask"]
    mask = read_optional_json(masks[0] / "config.json", _Mask) if masks else _Mask()
    if mask.keep_only_token_ids:
        raise CheckpointError(
            f"{masks[0] / 'config.json'}: keep_only_token_ids, which is for images, isn't supported; use another model"
        )
    file = find_sentence_file(folder)
    lengths = read_optional_json(file, _Lengths)
    if lengths.query_expansion and (lengths.query_length or math.inf) < lengths.query_expansion.length:
        raise CheckpointError(
            f"{file}: query_length = {lengths.query_length} is below the query_expansion's length of "
            f"{lengths.query_expansion.length}; remove one of them"
        )
    tasks = [mask.skiplist_tasks] if isinstance(mask.skiplist_tasks, str) else mask.skiplist_tasks or ["document"]
    tokenizer = open_tokenizer(folder).tokenizer
    return MultiVector(
        dense=dense,
        normalize=any(module.kind == "Normalize" for module in modules),
        max_query_tokens=lengths.query_length,
        max_document_tokens=lengths.document_length,
        expansion=_find_expansion(folder, tokenizer, lengths.query_expansion or None),
        skip_ids=known_ids(tokenizer, mask.skiplist_words),
        skip_roles=msgspec.convert([task for task in tasks if task in {"query", "document"}], tuple[Role, ...]),
    )


def _read_pylate(
    folder: Path, dense: tuple[Dense, ...], config: _PromptsConfig
) -> tuple[MultiVector, dict[str, str | None]]:
    """Read PyLate's format: a marker token before each text; punctuation in documents is skipped by default."""
    tokenizer = open_tokenizer(folder).tokenizer
    prefixes = {"query": config.query_prefix, "document": config.document_prefix}
    markers = {role: prefix for role, prefix in prefixes.items() if prefix}
    prompts = config.prompts | {
        role: marker + (config.prompts.get(role) or "").removeprefix(marker) for role, marker in markers.items()
    }
    multi_vector = MultiVector(
        dense=dense,
        normalize=True,
        max_document_tokens=config.document_length,
        max_query_tokens=None if config.expansion() else config.query_length,
        expansion=_find_expansion(folder, tokenizer, config.expansion()),
        skip_ids=known_ids(tokenizer, string.punctuation if config.skiplist_words is None else config.skiplist_words),
        skip_roles=("document",),
        markers=tuple(markers.values()),
    )
    return multi_vector, prompts


def _find_linear(folder: Path, hidden_size: int) -> Dense:
    """Find the linear layer of Stanford's format, which is among the transformer's weights."""
    weights = folder / "model.safetensors"
    match tensor_shapes(weights).get("linear.weight"):
        case (outputs, inputs) if inputs == hidden_size:
            return Dense(file=weights, in_features=hidden_size, out_features=outputs, bias=False)
    raise CheckpointError(f"{weights}: has no linear.weight for {hidden_size} inputs, which an HF_ColBERT needs")


def _read_dense(folder: Path, hidden_size: int, modules: list[Module]) -> tuple[Dense, ...]:
    """Read the linear layers on tokens. Raises CheckpointError for any other step, order or width."""
    kinds = [module.kind for module in modules]
    layers = [module for module in modules if module.kind == "Dense"]
    after = kinds[1 + len(layers) :]
    expected = ["Transformer", *["Dense"] * len(layers), *after]
    if kinds != expected or len(set(after)) < len(after) or set(after) - {"MultiVectorMask", "Normalize"}:
        raise unsupported_steps(folder / "modules.json", modules, "Transformer, Dense…, MultiVectorMask, Normalize")
    for module in modules:
        if module.kind == "Normalize":
            refuse_other_vectors(module_folder(folder, module.path), _VECTORS)
    return read_dense_layers((module_folder(folder, module.path) for module in layers), _VECTORS, hidden_size)


def _find_expansion(folder: Path, tokenizer: Tokenizer, config: _Expansion | None) -> QueryExpansion | None:
    """Find the token that queries are padded with: the configured one, else the mask token, else the end token."""
    if config is None:
        return None
    file = folder / "tokenizer_config.json"
    special = read_optional_json(file, TokenizerConfig)
    if special.padding_side == "left":
        raise CheckpointError(
            f"{file}: query expansion with padding_side = left isn't supported; turn query_expansion off, or use a "
            "model that pads on the right"
        )
    tokens = [config.token] if config.token else [special.special_token("mask"), special.special_token("eos"), "[MASK]"]
    token_id = next((found for token in tokens if (found := tokenizer.token_to_id(token)) is not None), None)
    if token_id is None:
        raise CheckpointError(f"{folder}: query expansion is on, but its tokenizer has no token for it")
    truncate = config.strategy == "fixed"
    return QueryExpansion(token_id=token_id, length=config.length, truncate=truncate, attended=config.attend)
