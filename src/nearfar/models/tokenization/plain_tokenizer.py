"""A checkpoint's tokenizer without templates and truncation: text to token ids, and back. Every method is thread-safe.

The tokenizer's own truncation and padding are turned off once, at opening, and ids are sliced by the caller: setting a
length for each call on a shared tokenizer gave a wrong one about once in 4,000 threaded calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from tokenizers import Encoding
from tokenizers.normalizers import Lowercase, Normalizer
from tokenizers.normalizers import Sequence as Normalizers

from nearfar.core.errors import InputError, InvalidTokenIds
from nearfar.core.jobs import TokenSpan
from nearfar.core.types import KeepSide
from nearfar.models.files.tokenizer.tokenizer_json import OpenedTokenizer
from nearfar.models.files.tokenizer.tokenizer_limits import is_failure
from nearfar.models.tokenization.row import row_ids

_SHORT_TEXT = 250  # characters; they take at most 0.3 ms, and releasing the GIL for them costs more than it saves
_FIRST_PASS = 100_000  # characters, ten of OpenAI's longest texts; 10 MB of one-letter words take 10 s and 3 GB
_TOKEN_IDS = range(2**32)  # what tokenizers accepts


class PlainTokenizer:
    """The tokenizer of one checkpoint. ``default_side`` is the part of a text that truncation keeps.

    Of a text over 100,000 characters only that part is tokenized first. The whole text is, where the part has no more
    than ``max_tokens``.
    """

    def __init__(self, opened: OpenedTokenizer, max_tokens: int, *, lower_case: bool) -> None:
        self.source = opened.source
        self.default_side: KeepSide = "end" if opened.truncates_left else "start"
        self._tokenizer = opened.tokenizer
        self._max_tokens = max_tokens
        if lower_case:
            inner = self._tokenizer.normalizer
            steps: list[Normalizer] = [Lowercase()] if inner is None else [Lowercase(), inner]
            self._tokenizer.normalizer = Normalizers(steps)

    def encode(self, texts: list[str], count_up_to: int = 0) -> list[list[int]]:
        """Return each text's ids; of a long text only those that truncation keeps, if these are more than needed."""
        if len(texts) == 1 and len(texts[0]) <= _SHORT_TEXT:
            return [self._run(self._tokenizer.encode, texts[0], add_special_tokens=False).ids]
        parts = [*map(itemgetter(_first_pass(self.default_side)), texts)]
        # Unlike ``encode``, it releases the GIL, and leaves out the offsets, which saves 15 %.
        encode = self._tokenizer.encode_batch_fast
        found = [*map(row_ids, self._run(encode, parts, add_special_tokens=False))]
        for at, text in enumerate(texts):
            if len(text) > _FIRST_PASS and len(found[at]) <= max(self._max_tokens, count_up_to):
                found[at] = self._run(encode, [text], add_special_tokens=False)[0].ids
        return found

    def encode_whole(self, text: str, *, special: bool = False) -> Encoding:
        """Encode a text with offsets. The tokenizer's ``encode`` wouldn't release the GIL: 10 MB take seconds."""
        encoding: Encoding = self._run(self._tokenizer.encode_batch, [text], add_special_tokens=special)[0]
        return encoding

    def encode_start(self, text: str) -> Encoding:
        """Encode a text with offsets: all of it, or its start if that has enough tokens."""
        encoded = self.encode_whole(text[:_FIRST_PASS])
        if len(text) > _FIRST_PASS and len(encoded.ids) <= self._max_tokens:
            encoded = self.encode_whole(text)
        return encoded

    def encode_end(self, prompt: str, text: str, limit: int) -> list[int]:
        """Return the prompt's ids and the text's last ones, ``limit`` in all."""
        encoded = self.encode_whole(prompt + text[-_FIRST_PASS:])
        if len(encoded.ids) <= limit:
            encoded = self.encode_whole(prompt + text)
        own = min(count_prompt_tokens(prompt, encoded), limit)
        return encoded.ids[:own] + encoded.ids[own:][len(encoded.ids) - limit :]

    def find_offsets(self, text: str, tokens: int, keep: KeepSide) -> tuple[str, list[tuple[int, int]]]:
        """Return a text and its tokens' offsets, or only its start or end if that has more than so many tokens."""
        part = text[_first_pass(keep)]
        offsets = self.encode_whole(part).offsets
        if len(part) < len(text) and len(offsets) <= tokens:
            return text, self.encode_whole(text).offsets
        return part, offsets

    def tokenize(self, text: str, *, special: bool) -> tuple[TokenSpan, ...]:
        """Return a text's tokens, uncut, with or without special tokens, and the characters that each covers."""
        encoded = self.encode_whole(text, special=special)
        # Names are looked up by id: some tokenizers' encodings contain the text of unknown tokens.
        return tuple(
            TokenSpan(token, self._tokenizer.id_to_token(token) or "", bool(added), *((0, 0) if added else span))
            for token, added, span in zip(encoded.ids, encoded.special_tokens_mask, encoded.offsets, strict=True)
        )

    def decode(self, ids: Sequence[int], *, special: bool = True) -> str:
        """Decode ids of this vocabulary, special tokens by name or left out. Raises InvalidTokenIds for other ids."""
        for token in ids:
            if token not in _TOKEN_IDS or self._tokenizer.id_to_token(token) is None:
                raise InvalidTokenIds(f"token {token} is not in this model's vocabulary", "tokens")
        text: str = self._run(self._tokenizer.decode, list(ids), skip_special_tokens=not special)
        return text

    def is_special(self, token: int) -> bool:
        """Return whether an id is a special token's."""
        added = self._tokenizer.get_added_tokens_decoder().get(token)
        return added is not None and added.special

    def _run(self, function: Callable[..., Any], *arguments: Any, **options: bool) -> Any:
        """Call the tokenizer. Raises InputError if it fails: a pattern may be too slow for one text."""
        try:
            return function(*arguments, **options)
        except BaseException as error:
            if is_failure(error):
                raise InputError(f"this model's tokenizer ({self.source}) can't process the text: {error}") from error
            raise


def count_prompt_tokens(prompt: str, encoded: Encoding) -> int:
    """Return how many tokens of a text that starts with the prompt are the prompt's."""
    return sum(end <= len(prompt) for _, end in encoded.offsets) if prompt else 0


def _first_pass(keep: KeepSide) -> slice:
    return slice(-_FIRST_PASS, None) if keep == "end" else slice(_FIRST_PASS)
