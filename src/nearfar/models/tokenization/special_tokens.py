"""Special tokens: around a text, around a pair, and those that ColBERT adds. Checks of those that a tokenizer adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from tokenizers import AddedToken, Encoding, Tokenizer

from nearfar.core.errors import CheckpointError
from nearfar.core.types import KeepSide, Role
from nearfar.models.files.config import TokenizerConfig
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.recipe.recipe import MultiVector, Recipe
from nearfar.models.tokenization.row import Row

# Their token types are words of the vocabulary, also for a single text's type 0.
_TYPES_ARE_WORDS = frozenset(
    ("codegen", "ctrl", "flaubert", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "openai-gpt", "xlm")
)


class TextTemplate:
    """The special tokens around a text, learned from one that was encoded with and without them."""

    def __init__(self, with_special: Encoding, without: Encoding) -> None:
        ids, bare = with_special.ids, without.ids
        start = next((at for at in range(len(ids)) if ids[at : at + len(bare)] == bare), None)
        if start is None or not bare:
            raise CheckpointError("tokenizer.json: special tokens that change the text's own tokens aren't supported")
        self.prefix = ids[:start]
        self.suffix = ids[start + len(bare) :]
        self.size = len(self.prefix) + len(self.suffix)


class PairTemplate:
    """The special tokens around and between the two texts of a pair, and the type ids of all tokens."""

    def __init__(self, pair: Encoding, *, with_types: bool, keep: KeepSide = "start") -> None:
        sides = pair.sequence_ids  # 0 and 1 for the two texts, None for special tokens
        first, second = sides.index(0), sides.index(1)
        spans = ((0, first), (first + sides.count(0), second), (second + sides.count(1), len(sides)))
        self._ids = [pair.ids[start:end] for start, end in spans]
        self._types = [pair.type_ids[start:end] for start, end in spans]
        self._sides = (pair.type_ids[first], pair.type_ids[second])
        self._with_types = with_types
        self._keep = keep
        self.size = sum(len(ids) for ids in self._ids)

    def build(self, query: list[int], document: list[int], max_tokens: int, max_document_tokens: int | None) -> Row:
        """Build the row of a pair, truncated as transformers' ``longest_first`` does.

        The document loses its end first, the query only what it has beyond half of the space. Both lose their start
        instead if the tokenizer truncates on the left.
        """
        space = max_tokens - self.size
        kept = document[:max_document_tokens]
        half = space // 2 + (space % 2 if len(query) > len(kept) else 0)  # an odd token goes to the longer side
        first = cut_to(query, max(half, space - len(kept)), self._keep)
        second = cut_to(kept, space - len(first), self._keep)
        ids = _join(self._ids, first, second)
        left, right = self._sides
        types = _join(self._types, [left] * len(first), [right] * len(second)) if self._with_types else []
        token_count = len(query) + len(document)
        return Row(ids, types if any(types) else None, token_count, token_count - len(first) - len(second))


def cut_to(ids: list[int], count: int, keep: KeepSide) -> list[int]:
    """Return the first, or the last, ``count`` ids."""
    return ids[:count] if keep == "start" else ids[max(len(ids) - count, 0) :]


def _join(around: list[list[int]], first: list[int], second: list[int]) -> list[int]:
    before, between, after = around
    return [*before, *first, *between, *second, *after]


def prepare_token_vectors(row: Row, multi_vector: MultiVector, role: Role) -> Row:
    """Return the row with a short query expanded, and with the positions of the tokens that have a vector."""
    ids, unattended = row.ids, 0
    expansion = multi_vector.expansion if role == "query" else None
    if expansion and len(ids) < expansion.length:
        added = expansion.length - len(ids)
        ids = [*ids, *([expansion.token_id] * added)]
        unattended = 0 if expansion.attended else added
    skipped = multi_vector.skip_ids if role in multi_vector.skip_roles else frozenset[int]()
    positions = None
    if multi_vector.skip_first or not skipped.isdisjoint(ids):
        first = multi_vector.skip_first
        positions = [at for at, token in enumerate(ids) if at >= first and token not in skipped]
    return msgspec.structs.replace(row, ids=ids, unattended=unattended, vector_positions=positions)


def register_markers(tokenizer: Tokenizer, multi_vector: MultiVector) -> None:
    """Register each marker as a single token if the vocabulary has it, with or without its trailing space."""
    for marker in multi_vector.markers:
        words = (marker, *marker.split(maxsplit=1)[:1])
        known = next((word for word in words if tokenizer.token_to_id(word) is not None), None)
        if known and tokenizer.encode(known, add_special_tokens=False).tokens != [known]:
            tokenizer.add_special_tokens([AddedToken(known, normalized=False, special=True)])


def check_end_token(folder: Path, encode: Callable[[Sequence[str]], Sequence[Row]]) -> None:
    """Raise CheckpointError if texts are encoded without the end token, which has a text's vector.

    transformers 5 follows tokenizer.json alone; earlier versions added the token that tokenizer_config.json asks
    for. E5-Mistral and gte-Qwen2 were trained with it.
    """
    file = folder / "tokenizer_config.json"
    if read_optional_json(file, TokenizerConfig).add_eos_token is not True:
        return
    if len({row.ids[-1] for row in encode(["a", "b", "c", "1", "2"])}) > 1:
        raise CheckpointError(
            f"{file}: add_eos_token is set, and the model's vector is that of this last token, but tokenizer.json "
            "doesn't add it; add it to the post_processor there"
        )


def check_token_types(folder: Path, recipe: Recipe, single: Encoding) -> None:
    """Raise CheckpointError for token types that change the numbers of single texts, of which ``single`` is one."""
    if recipe.type_ids and any(single.type_ids):
        found = "single texts have other token types than 0"
    elif recipe.model_type in _TYPES_ARE_WORDS:
        found = f"texts have token types, for which {recipe.model_type} adds embeddings of words"
    else:
        return
    raise CheckpointError(
        f"{folder / 'tokenizer_config.json'}: {found}, which isn't supported; set model_input_names to "
        '["input_ids", "attention_mask"] to serve the model without'
    )
