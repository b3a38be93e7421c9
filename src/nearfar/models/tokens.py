"""Text, or a pair of texts, → ids, cut to the model's limit. Knows the tokenizer's files; knows no tensors.

The tokenizer's own truncation and padding are switched off once, at opening, and the ids are cut here by
slicing: asking for a length call by call on a shared tokenizer gave a wrong one about once in 4,000 threaded
calls. Every method may be called from several threads at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase, Normalizer
from tokenizers.normalizers import Sequence as Normalizers

from nearfar.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tokenizers import Encoding

    from nearfar.models.recipe import Recipe


class Row(Struct, frozen=True):
    """One input of an engine: ``ids`` with special tokens, ``type_ids`` of the same length or None for all zeros.

    ``content`` counts the tokens of the text before anything was cut, ``cut`` those that were cut off; neither
    counts special tokens.
    """

    ids: list[int]
    type_ids: list[int] | None
    content: int
    cut: int


class Tokens:
    """The tokenizer of one checkpoint, with the checkpoint's limit and special tokens."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self._tokenizer = _open_tokenizer(folder)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if recipe.lower_case:
            inner = self._tokenizer.normalizer
            steps: list[Normalizer] = [Lowercase()] if inner is None else [Lowercase(), inner]
            self._tokenizer.normalizer = Normalizers(steps)
        self.max_tokens = recipe.max_tokens
        self._single = _Template(self._tokenizer.encode("a"), self._tokenizer.encode("a", add_special_tokens=False))
        pair = self._tokenizer.encode("a", "a") if recipe.task == "score" else None
        self._pair = _PairTemplate(pair) if pair else None
        special = self._pair.size if self._pair else self._single.size
        if recipe.max_tokens <= special:
            raise CheckpointError(f"{folder}: a limit of {recipe.max_tokens} tokens leaves no room for text")

    def encode(self, texts: Sequence[str], prompt: str = "", limit: int | None = None) -> list[Row]:
        """Turn each text, with ``prompt`` before it, into ids cut to ``max_tokens``, or to a smaller ``limit``."""
        encoded = self._ids([prompt + text for text in texts])
        template = self._single
        room = min(self.max_tokens - template.size, limit or self.max_tokens)
        return [
            Row(template.prefix + ids[:room] + template.suffix, None, len(ids), max(0, len(ids) - room))
            for ids in encoded
        ]

    def encode_pairs(self, query: str, documents: Sequence[str], max_tokens_per_document: int | None) -> list[Row]:
        """Turn the query with each document into ids; the document is cut first, the query only past half the room.

        ``max_tokens_per_document`` bounds a document's own tokens further.
        """
        template = self._pair
        if template is None:
            raise TypeError("this checkpoint takes single texts")
        room = self.max_tokens - template.size
        asked, *answers = self._ids([query, *documents])
        kept_query = asked[: max(room // 2, 1)]
        room = min(room - len(kept_query), max_tokens_per_document or room)
        return [
            Row(
                *template.join(kept_query, ids[:room]),
                len(asked) + len(ids),
                len(asked) - len(kept_query) + max(0, len(ids) - room),
            )
            for ids in answers
        ]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [encoded.ids for encoded in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


class _Template:
    """The special tokens around a text, learned from one that was encoded with and without them."""

    def __init__(self, wrapped: Encoding, bare: Encoding) -> None:
        start = next((i for i in range(len(wrapped.ids)) if wrapped.ids[i : i + len(bare.ids)] == bare.ids), None)
        if start is None or not bare.ids:
            raise CheckpointError("tokenizer.json: its special tokens are not simply put around the text")
        self.prefix = wrapped.ids[:start]
        self.suffix = wrapped.ids[start + len(bare.ids) :]
        self.size = len(self.prefix) + len(self.suffix)


class _PairTemplate:
    """The special tokens and type ids around, and between, the two texts of a pair."""

    def __init__(self, pair: Encoding) -> None:
        first, second = (pair.sequence_ids.index(side) for side in (0, 1))
        first_end = max(i for i, side in enumerate(pair.sequence_ids) if side == 0) + 1
        second_end = max(i for i, side in enumerate(pair.sequence_ids) if side == 1) + 1
        self._spans = ((0, first), (first_end, second), (second_end, len(pair.ids)))
        self._ids = [pair.ids[a:b] for a, b in self._spans]
        self._types = [pair.type_ids[a:b] for a, b in self._spans]
        self._sides = (pair.type_ids[first], pair.type_ids[second])
        self.size = sum(len(ids) for ids in self._ids)

    def join(self, first: list[int], second: list[int]) -> tuple[list[int], list[int] | None]:
        before, between, after = self._ids
        types = _flatten(
            (
                self._types[0],
                [self._sides[0]] * len(first),
                self._types[1],
                [self._sides[1]] * len(second),
                self._types[2],
            )
        )
        return [*before, *first, *between, *second, *after], types if any(types) else None


def _flatten(lists: Iterable[list[int]]) -> list[int]:
    return [item for items in lists for item in items]


def _open_tokenizer(folder: Path) -> Tokenizer:
    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises nothing narrower
            raise CheckpointError(f"{file}: is damaged: {error}") from error
    return _converted(folder)


def _converted(folder: Path) -> Tokenizer:
    """Let transformers build a fast tokenizer from older files (vocab.txt, spiece.model)."""
    try:
        from transformers import AutoTokenizer  # 2 s, and only folders without tokenizer.json need it

        opened = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer: Tokenizer = opened.backend_tokenizer
    except ImportError as error:
        raise CheckpointError(
            f"{folder}: has no tokenizer.json; converting its older files needs {error.name}"
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder}: has no tokenizer that can be read: {error}") from error
    return tokenizer
