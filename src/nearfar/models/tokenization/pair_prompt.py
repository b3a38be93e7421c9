"""A judge's question about a query and documents → ids, cut to the model's limit."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from nearfar.core.errors import InputError
from nearfar.models.recipe.llm_reranker import DOCUMENT, INSTRUCTION, QUERY
from nearfar.models.tokenization.chunking import TokenBudget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nearfar.models.recipe.llm_reranker import PairPrompt

    Encode: TypeAlias = Callable[[list[str]], list[list[int]]]

_PLACES = re.compile(r"(\{\w+\})")


class Put(NamedTuple):
    """A pair as the model is asked about it: its ids, the tokens of its texts before they were cut, and those cut."""

    ids: list[int]
    content: int
    cut: int


class PairPromptEncoder:
    """Puts a question. ``encode`` gives texts' ids; ``begin`` the beginning of a text that has so many tokens."""

    def __init__(self, question: PairPrompt, encode: Encode, begin: Callable[[str, int], str]) -> None:
        self._told = question.segments_with_instruction
        self._encode = encode
        self._begin = begin
        self._untold = _Form(question.segments, "", encode)
        self.size = self._untold.size

    def ask(
        self, query: str, documents: Sequence[str], most: int, limit: int | None, instruction: str | None
    ) -> list[Put]:
        """Put the query with each document, in ``most`` tokens at the most, of which ``limit`` are the document's.

        Over that, the document loses its end, and the query its own where it takes more than half of the room that the
        question leaves for the two. Raises InputError for an instruction that the model doesn't take, or too long.
        """
        form = self._form(instruction, most)
        base, *bodies = form.bodies([(query, document) for document in ("", *documents)])
        room, asked = most - form.size, len(base) - form.empty
        found = []
        for document, whole in zip(documents, bodies, strict=True):
            answer = len(whole) - len(base) if limit is None else min(len(whole) - len(base), limit)
            kept = max(room // 2, room - answer)
            body = whole if asked <= kept else form.bodies([(self._begin(query, kept), document)])[0]
            body = form.cut(body, form.empty + min(min(asked, kept) + answer, room))
            content = len(whole) - form.empty
            found.append(Put([*form.before, *body, *form.after], content, len(whole) - len(body)))
        return found

    def room(self, query: str, most: int, instruction: str | None) -> TokenBudget:
        """Tell what ``ask`` has for a document that is too long."""
        form = self._form(instruction, most)
        [base] = form.bodies([(query, "")])
        room = most - form.size
        return TokenBudget(
            max(room // 2, room - (len(base) - form.empty)),
            lambda text: len(form.bodies([(query, text)])[0]) - len(base),
        )

    def _form(self, instruction: str | None, most: int) -> _Form:
        if instruction is None:
            return self._untold
        if self._told is None:
            raise InputError("this model takes no instruction; leave it out", "instruction")
        form = _Form(self._told, instruction, self._encode)
        if form.size >= most:
            raise InputError(f"the instruction leaves no room for text in the model's {most} tokens", "instruction")
        return form


class _Form:
    """A question's texts for one request: those before the pair, the body that the pair stands in, and those after.

    ``empty`` is the body's length with neither query nor document; ``tail`` is what follows the document within it.
    """

    def __init__(self, texts: Sequence[str], instruction: str, encode: Encode) -> None:
        self._instruction = instruction
        self._encode = encode
        first = next(at for at, text in enumerate(texts) if QUERY in text)
        last = next(at for at, text in enumerate(texts) if DOCUMENT in text)
        self._body = texts[first : last + 1]
        tail = self._fill(texts[last].partition(DOCUMENT)[2])
        fixed = [self._fill(text) for text in (*texts[:first], *texts[last + 1 :], tail)]
        *ids, self.tail = encode(fixed)
        self.before = list(chain.from_iterable(ids[:first]))
        self.after = list(chain.from_iterable(ids[first:]))
        [empty] = self.bodies([("", "")])
        self.empty = len(empty)
        self.size = len(self.before) + self.empty + len(self.after)

    def bodies(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Give the body's ids with each pair in it; a text that several share is tokenised once."""
        filled = [[self._fill(text, *pair) for text in self._body] for pair in pairs]
        distinct = list(dict.fromkeys(chain.from_iterable(filled)))
        ids = dict(zip(distinct, self._encode(distinct), strict=True))
        return [list(chain.from_iterable(ids[text] for text in texts)) for texts in filled]

    def cut(self, body: list[int], most: int) -> list[int]:
        """Cut the end of the document, which what follows it within the body comes after."""
        return body if len(body) <= most else [*body[: most - len(self.tail)], *self.tail]

    def _fill(self, text: str, query: str = "", document: str = "") -> str:
        """Fill the places all at once: what is put there may hold braces itself."""
        parts = {INSTRUCTION: self._instruction, QUERY: query, DOCUMENT: document}
        return "".join(parts.get(part, part) for part in _PLACES.split(text))
