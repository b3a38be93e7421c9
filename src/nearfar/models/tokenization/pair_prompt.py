"""Encodes texts in chat templates, and pairs in the prompts of LLM rerankers, truncated to the model's limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from nearfar.core.errors import CheckpointError, InputError
from nearfar.core.jobs import Chat
from nearfar.core.types import KeepSide
from nearfar.models.files.chat_template import ChatTemplateError, Render, compile_template, find_chat
from nearfar.models.recipe.recipe import DOCUMENT, INSTRUCTION, QUERY, ChatTemplate, PairPrompt
from nearfar.models.tokenization.chunking import TokenBudget
from nearfar.models.tokenization.row import Row

Encode: TypeAlias = Callable[[list[str]], list[list[int]]]  # texts → their ids, without special tokens

_INSTEAD = "render the messages and send the text as input"
_FINAL = "CONTINUE_FINAL_MESSAGE_TAG "  # marks the end of the last message; transformers' own
_PLACEHOLDERS = re.compile(r"(\{\w+\})")


class ChatMessages:
    """Renders the messages of requests with the folder's own chat template, which is read with the first of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _render(self) -> Render | None:
        try:
            template = find_chat(self._folder)
            return compile_template(template) if template else None
        except (CheckpointError, ChatTemplateError) as error:
            raise InputError(f"messages: this model's chat template isn't supported; {_INSTEAD}", "messages") from error

    def render(self, chat: Chat) -> str:
        """Return the text, as transformers' apply_chat_template does. Raises InputError where that isn't possible."""
        if self._render is None:
            raise InputError(f"messages: this model has no chat template; {_INSTEAD}", "messages")
        messages = [*chat.messages]
        if chat.continue_final_message:
            role, (*parts, last) = messages[-1]
            messages[-1] = role, (*parts, last + _FINAL)
        try:
            rendered = self._render(messages, add_generation_prompt=chat.add_generation_prompt)
        except ChatTemplateError as error:
            why = f"messages: the model's chat template doesn't render these: {error.__cause__}"
            raise InputError(why, "messages") from error
        return _before_end(rendered) if chat.continue_final_message else rendered


def _before_end(rendered: str) -> str:
    """Return what precedes the mark at the end of the last message. Raises InputError if the template changes that."""
    before, found, after = rendered.rpartition(_FINAL.strip())
    if not found:
        raise InputError("continue_final_message: the model's chat template changes the last message", "messages")
    return before if after.startswith(" ") else before.rstrip()  # the template trims messages


class ChatEncoder:
    """Renders single texts with a chat template, and truncates them as sentence-transformers does."""

    def __init__(self, template: ChatTemplate, encode: Encode, folder: Path) -> None:
        try:
            self._render = compile_template(template)
            self._render([("user", "a")])
        except ChatTemplateError as error:
            raise CheckpointError(
                f"{folder}: {error}; use a chat_template.jinja, or a chat_template in tokenizer_config.json, that "
                "renders a user's message alone"
            ) from error
        self._encode = encode
        self._keeps_suffix = template.keeps_suffix
        self._around: dict[str, tuple[list[int], list[int]]] = {}

    def render(self, prompt: str, text: str) -> str:
        """Return the text as a user's message, after the prompt as the system's."""
        try:
            return self._render([*([("system", prompt)] if prompt else []), ("user", text)])
        except ChatTemplateError as error:
            raise InputError(f"the model's chat template takes no such text or prompt: {error}", "input") from error

    def truncate(self, ids: list[int], limit: int, prompt: str, keep: KeepSide) -> list[int]:
        """Cut the text's end, or its start, and keep the tokens after it; those before it too, to keep its end."""
        if len(ids) < limit:
            return ids
        before, after = self._tokens_around(prompt)
        if keep == "end" and len(ids) > limit:
            return ids[: len(before)] + ids[len(before) :][len(ids) - limit :]
        kept = ids[:limit]
        count = min(len(after), limit) if self._keeps_suffix else 0
        return kept[: limit - count] + after[len(after) - count :]

    def _tokens_around(self, prompt: str) -> tuple[list[int], list[int]]:
        """Return the ids that two different texts have in common at their beginnings and at their ends."""
        if prompt not in self._around:
            first, second = self._encode([self.render(prompt, "0"), self.render(prompt, "1 2 3 4")])
            before = common_length(first, second)
            after = common_length(first[::-1], second[::-1])
            is_whole = after == min(len(first), len(second))
            self._around[prompt] = (first[:before], [] if is_whole or not after else first[-after:])
        return self._around[prompt]


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many items both begin with."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))


class PairPromptEncoder:
    """Encodes queries and documents into one model's prompt."""

    def __init__(self, prompt: PairPrompt, encode: Encode) -> None:
        self._segments_with_instruction = prompt.segments_with_instruction
        self._encode = encode
        self._query_ratio = prompt.query_ratio
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

        The pair loses its end, as where the models' authors compute scores; some cut the query first. Raises InputError
        for an instruction that the model doesn't support, or that is too long.
        """
        prompt = self._prompt(instruction, max_tokens)
        limit = self._query_limit(max_tokens)
        bare, *bodies = prompt.encode_pairs([(query, document) for document in ("", *documents)], limit)
        cut = 0 if limit is None else len(prompt.encode_pairs([(query, "")])[0]) - len(bare)
        rows = []
        for whole in bodies:
            length = max_tokens - prompt.size + prompt.empty_size
            if max_document_tokens is not None:
                length = min(length, len(bare) + max_document_tokens)
            body = prompt.truncate(whole, length)
            ids = [*prompt.before, *body, *prompt.after]
            rows.append(Row(ids, None, len(whole) - prompt.empty_size + cut, len(whole) - len(body) + cut))
        return rows

    def budget(self, query: str, max_tokens: int, instruction: str | None) -> TokenBudget:
        """Return the budget of a document in a prompt with this query."""
        prompt = self._prompt(instruction, max_tokens)
        [bare] = prompt.encode_pairs([(query, "")], self._query_limit(max_tokens))
        [whole] = prompt.encode_pairs([(query, "")])
        space = max_tokens - prompt.size - (len(bare) - prompt.empty_size)
        return TokenBudget(max(space, 1), lambda text: len(prompt.encode_pairs([(query, text)])[0]) - len(whole))

    def _query_limit(self, max_tokens: int) -> int | None:
        """Return how many tokens the query's segment may have; None if only the pair is cut."""
        return int(max_tokens * self._query_ratio) if self._query_ratio < 1 else None

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

    def encode_pairs(self, pairs: Sequence[tuple[str, str]], query_limit: int | None = None) -> list[list[int]]:
        """Return the body's ids for each pair; a segment that several share is tokenized once.

        The query's segment, if the document isn't in it, is cut to ``query_limit``.
        """
        filled = [[self._fill(text, *pair) for text in self._body] for pair in pairs]
        distinct = list(dict.fromkeys(chain.from_iterable(filled)))
        ids = dict(zip(distinct, self._encode(distinct), strict=True))
        if len(self._body) > 1:
            ids |= {texts[0]: ids[texts[0]][:query_limit] for texts in filled}
        return [list(chain.from_iterable(ids[text] for text in texts)) for texts in filled]

    def truncate(self, body: list[int], max_tokens: int) -> list[int]:
        """Cut the pair's end off the body, and keep what follows the document."""
        return body if len(body) <= max_tokens else [*body[: max(max_tokens - len(self._tail), 0)], *self._tail]

    def _fill(self, text: str, query: str = "", document: str = "") -> str:
        """Fill all placeholders in one pass, since the texts may contain braces themselves."""
        values = {INSTRUCTION: self._instruction, QUERY: query, DOCUMENT: document}
        return "".join(values.get(part, part) for part in _PLACEHOLDERS.split(text))
