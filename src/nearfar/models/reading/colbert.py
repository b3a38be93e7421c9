"""How a folder says that it has a vector for each token, and which of them count.

Three ways of saving such models are read: sentence-transformers' (a MultiVectorMask among the modules), PyLate's
(model_type ColBERT) and Stanford's (architecture HF_ColBERT, artifact.metadata).
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from nearfar.core.errors import CheckpointError
from nearfar.core.types import Role
from nearfar.models.files.config import PROMPTS_FILE
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.files.safetensors import tensor_shapes
from nearfar.models.files.tokenizer_json import open_tokenizer
from nearfar.models.reading.modules import Module, Names, check_widths, inside, read_dense, refuse_other_vectors
from nearfar.models.recipe.dense import Dense
from nearfar.models.recipe.multi_vector import MultiVector, QueryExpansion

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

    from nearfar.models.files.config import ModelConfig

_TOKENS = "token_embeddings"  # what sentence-transformers calls them
_LENGTH = 32  # of a query with all that is put after it: the paper's


class Found(Struct, kw_only=True):
    """What a folder says of its vectors, its prompts, and the file that does."""

    multi_vector: MultiVector
    prompts: dict[str, str]
    source: str


class _Expansion(Struct):
    strategy: Literal["fixed", "min"]
    length: int
    attend: bool = False
    token: str | None = None


class _Knobs(Struct):
    """Of sentence_bert_config.json, or in PyLate's folders of config_sentence_transformers.json."""

    query_length: int | None = None
    document_length: int | None = None
    query_expansion: _Expansion | UnsetType | None = UNSET


class _Said(_Knobs):
    """config_sentence_transformers.json, with what PyLate puts there."""

    model_type: str | None = None
    prompts: dict[str, str | None] = {}
    query_prefix: str | None = None
    document_prefix: str | None = None
    do_query_expansion: bool | None = None
    attend_to_expansion_tokens: bool = False
    skiplist_words: list[str] | None = None

    def expansion(self) -> _Expansion | None:
        """Give PyLate's: on where nothing else is said."""
        if self.query_expansion is not UNSET:
            return self.query_expansion
        if self.do_query_expansion is False:
            return None
        return _Expansion("fixed", self.query_length or _LENGTH, self.attend_to_expansion_tokens)


class _Mask(Struct):
    """MultiVectorMask's config.json."""

    skiplist_words: list[str] = []
    skiplist_tasks: str | list[str] | None = None
    keep_only_token_ids: list[int] | None = None


class _Stanford(Struct):
    """artifact.metadata, with the defaults of Stanford's own ColBERT."""

    query_token_id: str = "[unused0]"  # noqa: S105 — a word of BERT's
    doc_token_id: str = "[unused1]"  # noqa: S105
    query_maxlen: int = _LENGTH
    doc_maxlen: int | None = None
    mask_punctuation: bool = True
    attend_to_mask_tokens: bool = False


def is_multi_vector(folder: Path, config: ModelConfig, modules: Sequence[Module] | None) -> bool:
    """Tell whether the folder has a model of this kind."""
    kinds = [module.kind for module in modules or ()]
    said = read_optional_json(folder / PROMPTS_FILE, _Said).model_type
    return "MultiVectorMask" in kinds or said == "ColBERT" or "HF_ColBERT" in (config.architectures or ())


def read_multi_vector(folder: Path, config: ModelConfig, hidden_size: int, modules: Sequence[Module] | None) -> Found:
    """Read how the model gives its vectors. Raises CheckpointError for what can't be honoured."""
    found = _read(folder, hidden_size, modules)
    longer = found.multi_vector.expansion
    window = config.local_attention or config.sliding_window
    if longer and window and not longer.attended and longer.length > window // 2:
        found.multi_vector = msgspec.structs.replace(found.multi_vector, window=window)
    return found


def _read(folder: Path, hidden_size: int, modules: Sequence[Module] | None) -> Found:
    if modules is None:
        return _stanford(folder, hidden_size)
    dense = _dense(folder, hidden_size, modules)
    said = read_optional_json(folder / PROMPTS_FILE, _Said)
    if said.model_type == "ColBERT":
        return _pylate(folder, dense, said)
    kinds = [module.kind for module in modules]
    masks = [inside(folder, module.path) for module in modules if module.kind == "MultiVectorMask"]
    mask = read_optional_json(masks[0] / "config.json", _Mask) if masks else _Mask()
    if mask.keep_only_token_ids:
        raise CheckpointError(f"{folder / 'modules.json'}: keep_only_token_ids, which is for images, isn't supported")
    knobs = read_optional_json(folder / "sentence_bert_config.json", _Knobs)
    tasks = [mask.skiplist_tasks] if isinstance(mask.skiplist_tasks, str) else mask.skiplist_tasks or ["document"]
    tokenizer = open_tokenizer(folder)
    return Found(
        multi_vector=MultiVector(
            dense=dense,
            normalize="Normalize" in kinds,
            max_query_tokens=knobs.query_length,
            max_document_tokens=knobs.document_length,
            expansion=_expansion(folder, tokenizer, knobs.query_expansion or None),
            skip_ids=_ids(tokenizer, mask.skiplist_words),
            skip_roles=msgspec.convert([task for task in tasks if task in {"query", "document"}], tuple[Role, ...]),
        ),
        prompts={name: prompt for name, prompt in said.prompts.items() if prompt},
        source="modules.json",
    )


def _pylate(folder: Path, dense: tuple[Dense, ...], said: _Said) -> Found:
    """PyLate puts a token before each text, and by default skips punctuation in documents."""
    tokenizer = open_tokenizer(folder)
    prefixes = {"query": said.query_prefix, "document": said.document_prefix}
    prompts = {name: prompt for name, prompt in said.prompts.items() if prompt}
    for role, prefix in prefixes.items():
        if prefix:
            prompts[role] = prefix + prompts.get(role, "").removeprefix(prefix)
    words = string.punctuation if said.skiplist_words is None else said.skiplist_words
    multi_vector = MultiVector(
        dense=dense,
        normalize=True,
        max_document_tokens=said.document_length,
        max_query_tokens=None if said.expansion() else said.query_length,
        expansion=_expansion(folder, tokenizer, said.expansion()),
        skip_ids=_ids(tokenizer, words),
        skip_roles=("document",),
        markers=tuple(prefix for prefix in prefixes.values() if prefix),
    )
    return Found(multi_vector=multi_vector, prompts=prompts, source=PROMPTS_FILE)


def _stanford(folder: Path, hidden_size: int) -> Found:
    """Stanford keeps the projection among the transformer's weights."""
    said = read_optional_json(folder / "artifact.metadata", _Stanford)
    weights = folder / "model.safetensors"
    shape = tensor_shapes(weights).get("linear.weight")
    if shape is None or len(shape) != 2 or shape[1] != hidden_size:  # noqa: PLR2004 — a matrix
        raise CheckpointError(f"{weights}: has no linear.weight that takes {hidden_size} values, as an HF_ColBERT must")
    dense = Dense(file=weights, in_features=hidden_size, out_features=shape[0], bias=False)
    tokenizer = open_tokenizer(folder)
    expansion = _Expansion("fixed", said.query_maxlen, said.attend_to_mask_tokens)
    prompts = {"query": f"{said.query_token_id} ", "document": f"{said.doc_token_id} "}
    multi_vector = MultiVector(
        dense=(dense,),
        normalize=True,
        max_document_tokens=said.doc_maxlen,
        expansion=_expansion(folder, tokenizer, expansion),
        skip_ids=_ids(tokenizer, string.punctuation if said.mask_punctuation else ()),
        skip_roles=("document",),
        markers=tuple(prompts.values()),
    )
    return Found(multi_vector=multi_vector, prompts=prompts, source="artifact.metadata")


def _dense(folder: Path, hidden_size: int, modules: Sequence[Module]) -> tuple[Dense, ...]:
    """Read the layers on each token, refusing every other step, order and width."""
    kinds = [module.kind for module in modules]
    layers = [module for module in modules if module.kind == "Dense"]
    after = kinds[1 + len(layers) :]
    if kinds != ["Transformer", *["Dense"] * len(layers), *after] or sorted(set(after)) != sorted(after):
        after = ["another order"]
    if set(after) - {"MultiVectorMask", "Normalize"}:
        steps = ", ".join(module.type for module in modules)
        raise CheckpointError(
            f"{folder / 'modules.json'}: only Transformer, Dense…, MultiVectorMask, Normalize are supported, "
            f"not: {steps}"
        )
    for module in modules:
        if module.kind == "Normalize":
            file = inside(folder, module.path) / "config.json"
            refuse_other_vectors(file, read_optional_json(file, Names), _TOKENS)
    dense = tuple(read_dense(inside(folder, module.path), _TOKENS) for module in layers)
    check_widths(dense, hidden_size)
    return dense


def _expansion(folder: Path, tokenizer: Tokenizer, said: _Expansion | None) -> QueryExpansion | None:
    """Find the token: the one that is named, else the mask's, else the one at a text's end."""
    if said is None:
        return None
    file = folder / "tokenizer_config.json"
    special = read_optional_json(file, _Specials)
    if special.padding_side == "left":
        raise CheckpointError(
            f"{file}: padding_side = left puts what makes queries longer before them, which isn't supported; turn "
            "query_expansion off, or take a model that pads on the right"
        )
    token_id = tokenizer.token_to_id(said.token) if said.token else _special(special, tokenizer)
    if token_id is None:
        raise CheckpointError(f"{folder}: queries are to be made longer, and its tokenizer has no token for that")
    return QueryExpansion(
        token_id=token_id, length=said.length, truncate=said.strategy == "fixed", attended=said.attend
    )


class _Specials(Struct):
    """Of tokenizer_config.json: a token, or a description of one."""

    mask_token: str | dict[str, object] | None = None
    eos_token: str | dict[str, object] | None = None
    padding_side: str = "right"


def _special(said: _Specials, tokenizer: Tokenizer) -> int | None:
    for token in (said.mask_token, said.eos_token):
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and (found := tokenizer.token_to_id(content)) is not None:
            return found
    return tokenizer.token_to_id("[MASK]")


def _ids(tokenizer: Tokenizer, words: Sequence[str]) -> frozenset[int]:
    """Give the ids of the words that are one token of the vocabulary."""
    return frozenset(found for word in words if (found := tokenizer.token_to_id(word)) is not None)
