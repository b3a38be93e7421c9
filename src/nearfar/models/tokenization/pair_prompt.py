"""Encodes the prompts of LLM rerankers: a query and documents in a prompt, truncated to the model's limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeAlias

from nearfar.core.errors import InputError
from nearfar.models.recipe.recipe import DOCUMENT, INSTRUCTION, QUERY, PairPrompt
from nearfar.models.tokenization.chunking import TokenBudget
from nearfar.models.tokenization.row import Row

Encode: TypeAlias = Callable[[list[str]], list[list[int]]]  # texts → their ids, without special tokens
Truncate: TypeAlias = Callable[[str, int], str]  # a text → its beginning with so many tokens

_PLACEHOLDERS = re.compile(r"(\{\w+\})")


class PairPromptEncoder:
    """Encodes queries and documents into one model's prompt."""

    def __init__(self, prompt: PairPrompt, encode: Encode, truncate: Truncate) -> None:
        self._segments_with_instruction = prompt.segments_with_instruction
        self._encode = encode
        self._truncate = truncate
        self._plain = _EncodedPrompt(prompt.segments, "", encode)
        self.size = self._plain.size

    def encode(
        self,
        query: str,
        documents: Sequence[str],
        max_tokens: int,
        max_document_tokens: int | None,
        instruction: str | None,
    ) -> list[Row]:
        """Encode the query with each document into at most ``max_tokens``, prompt included.

        The document loses its end first, the query only what it has beyond half of the space. Raises InputError for an
        instruction that the model doesn't support, or that is too long.
        """
        prompt = self._prompt(instruction, max_tokens)
        bare, *bodies = prompt.encode_pairs([(query, document) for document in ("", *documents)])
        space, query_tokens = max_tokens - prompt.size, len(bare) - prompt.empty_size
        rows = []
        for document, whole in zip(documents, bodies, strict=True):
            document_tokens = len(whole) - len(bare)
            if max_document_tokens is not None:
                document_tokens = min(document_tokens, max_document_tokens)
            query_limit = max(space // 2, space - document_tokens)
            body = whole
            if query_tokens > query_limit:
                [body] = prompt.encode_pairs([(self._truncate(query, query_limit), document)])
            length = min(min(query_tokens, query_limit) + document_tokens, space)
            body = prompt.truncate(body, prompt.empty_size + length)
            ids = [*prompt.before, *body, *prompt.after]
            rows.append(Row(ids, None, len(whole) - prompt.empty_size, len(whole) - len(body)))
        return rows

    def budget(self, query: str, max_tokens: int, instruction: str | None) -> TokenBudget:
        """Return the budget of a document in a prompt with this query."""
        prompt = self._prompt(instruction, max_tokens)
        [bare] = prompt.encode_pairs([(query, "")])
        space = max_tokens - prompt.size
        return TokenBudget(
            max(space // 2, space - (len(bare) - prompt.empty_size)),
            lambda text: len(prompt.encode_pairs([(query, text)])[0]) - len(bare),
        )

    def _prompt(self, instruction: str | None, max_tokens: int) -> _EncodedPrompt:
        if instruction is None:
            return self._plain
        if self._segments_with_instruction is None:
            raise InputError("this model takes no instruction; leave it out", "instruction")
        prompt = _EncodedPrompt(self._segments_with_instruction, instruction, self._encode)
        if prompt.size >= max_tokens:
            raise InputError(
                f"the instruction leaves no room for text in the model's {max_tokens} tokens", "instruction"
            )
        return prompt


class _EncodedPrompt:
    """A prompt with its instruction filled in: the ids before and after the body, which contains the pair."""

    def __init__(self, segments: Sequence[str], instruction: str, encode: Encode) -> None:
        self._instruction = instruction
        self._encode = encode
        first = next(at for at, text in enumerate(segments) if QUERY in text)
        last = next(at for at, text in enumerate(segments) if DOCUMENT in text)
        self._body = segments[first : last + 1]
        tail = self._fill(segments[last].partition(DOCUMENT)[2])  # what follows the document within the body
        fixed = [self._fill(text) for text in (*segments[:first], *segments[last + 1 :], tail)]
        *ids, self._tail = encode(fixed)
        self.before = list(chain.from_iterable(ids[:first]))
        self.after = list(chain.from_iterable(ids[first:]))
        [empty] = self.encode_pairs([("", "")])
        self.empty_size = len(empty)  # of the body with neither query nor document
        self.size = len(self.before) + self.empty_size + len(self.after)

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Return the body's ids for each pair; a segment that several share is tokenized once."""
        filled = [[self._fill(text, *pair) for text in self._body] for pair in pairs]
        distinct = list(dict.fromkeys(chain.from_iterable(filled)))
        ids = dict(zip(distinct, self._encode(distinct), strict=True))
        return [list(chain.from_iterable(ids[text] for text in texts)) for texts in filled]

    def truncate(self, body: list[int], max_tokens: int) -> list[int]:
        """Cut the document's end off the body, and keep what follows the document."""
        return body if len(body) <= max_tokens else [*body[: max_tokens - len(self._tail)], *self._tail]

    def _fill(self, text: str, query: str = "", document: str = "") -> str:
        """Fill all placeholders in one pass, since the texts may contain braces themselves."""
        values = {INSTRUCTION: self._instruction, QUERY: query, DOCUMENT: document}
        return "".join(values.get(part, part) for part in _PLACEHOLDERS.split(text))
