"""Text, or a pair of texts, → ids, cut to the model's limit. Knows the tokenizer's files; knows no tensors.

The tokenizer's own truncation and padding are switched off once, at opening, and the ids are cut here by
slicing: asking for a length call by call on a shared tokenizer gave a wrong one about once in 4,000 threaded
calls. Every method may be called from several threads at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenizers.normalizers import Lowercase, Normalizer
from tokenizers.normalizers import Sequence as Normalizers

from nearfar.core.errors import CheckpointError, InputError
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.files.tokenizer_json import open_tokenizer
from nearfar.models.tokenization import probes
from nearfar.models.tokenization import token_spans as pieces
from nearfar.models.tokenization.chunking import TokenBudget, chunk
from nearfar.models.tokenization.pair_prompt import PairPromptEncoder
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.special_tokens import PairTemplate, TextTemplate
from nearfar.models.tokenization.token_markers import mark, register_markers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tokenizers import Encoding

    from nearfar.core.jobs import TokenSpan
    from nearfar.core.types import KeepSide, Role
    from nearfar.models.recipe.recipe import Recipe
    from nearfar.models.tokenization.chunking import Chunking, Chunks


_HEAD_CHARACTERS = 100_000  # ten of OpenAI's longest texts; 10 MB of one-letter words take 10 s and 3 GB


class TextEncoder:
    """The tokenizer of one checkpoint, with the checkpoint's limit and special tokens."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if recipe.lower_case:
            inner = self._tokenizer.normalizer
            steps: list[Normalizer] = [Lowercase()] if inner is None else [Lowercase(), inner]
            self._tokenizer.normalizer = Normalizers(steps)
        self._multi_vector = recipe.multi_vector
        if recipe.multi_vector:
            register_markers(self._tokenizer, recipe.multi_vector)
        self.max_tokens = recipe.max_tokens
        self._single = TextTemplate(self._tokenizer.encode("a"), self._tokenizer.encode("a", add_special_tokens=False))
        self._judge = (
            PairPromptEncoder(recipe.llm_reranker.prompt, self._ids_of, self._begin) if recipe.llm_reranker else None
        )
        pair = self._tokenizer.encode("a", "a") if recipe.task == "score" and not self._judge else None
        self._pair = PairTemplate(pair, with_types=recipe.type_ids) if pair else None
        special = (self._judge or self._pair or self._single).size
        if recipe.max_tokens <= special:
            raise CheckpointError(f"{folder}: a limit of {recipe.max_tokens} tokens leaves no room for text")
        self._refuse_lost_end_token(folder, recipe)

    def sample_rows(self) -> list[Row]:
        """Give rows of real text of the kind the engine will be given, the first of them small."""
        pairs = self._pair or self._judge
        return self.encode_pairs(probes.QUERY, probes.TEXTS, None) if pairs else self.encode(probes.TEXTS)

    def encode(  # noqa: PLR0913 — each is one request's own choice
        self,
        texts: Sequence[str],
        prompt: str = "",
        limit: int | None = None,
        *,
        enough: int | None = None,
        keep: KeepSide = "start",
        role: Role = "document",
    ) -> list[Row]:
        """Turn each text, with ``prompt`` before it, into ids cut to ``max_tokens``, or to a smaller ``limit``.

        What is over the limit is cut off a text's end, or off its start to ``keep`` the end; never off the prompt's.
        Where tokens have vectors of their own the model may have a limit for each ``role``, and put more after a query.
        Equal texts get one row, the same object. A text that has more than ``enough`` tokens (or ``max_tokens``, the
        larger) in its first 100,000 characters is read no further: the ids are the same, and its ``content`` is then
        a lower bound.
        """
        distinct = list(dict.fromkeys(texts))
        encoded = self._ids([prompt + text for text in distinct], max(self.max_tokens, enough or 0))
        template, how = self._single, self._multi_vector
        room = min(self._room(role), limit or self.max_tokens)
        rows = {}
        for text, ids in zip(distinct, encoded, strict=True):
            late = keep == "end" and len(ids) > room
            kept = self._without_start(prompt, text, room) if late else ids[:room]
            row = Row(template.prefix + kept + template.suffix, None, len(ids), max(0, len(ids) - room))
            rows[text] = mark(row, how, role) if how else row
        return [rows[text] for text in texts]

    def encode_concatenated(self, texts: Sequence[str], prompt: str = "") -> tuple[Row, list[tuple[int, int]]]:
        """Lay all texts' ids one after another between the special tokens, the prompt before the first.

        Say from which place to which each text's own lie. Nothing is cut: the row's ``cut`` says how many are too many.
        """
        first = self._encoded(prompt + texts[0])
        own = sum(stop <= len(prompt) for _, stop in first.offsets) if prompt else 0
        ids = [*self._single.prefix, *first.ids[:own]]
        spans = []
        for found in (first.ids[own:], *(self._ids_of([*texts[1:]]) if texts[1:] else ())):
            spans.append((len(ids), len(ids) + len(found)))
            ids += found
        content = len(ids) - len(self._single.prefix)
        return Row([*ids, *self._single.suffix], None, content, max(content - self._room("document"), 0)), spans

    def tokenize(self, text: str, *, special: bool) -> tuple[TokenSpan, ...]:
        """Give a text's tokens one by one, uncut, and where in the text each lies."""
        return pieces.split(self._tokenizer, text, special=special)

    def decode(self, ids: Sequence[int], *, special: bool = True) -> str:
        """Turn ids of this vocabulary into text, special tokens by their names or left out.

        Raises InvalidTokenIds for others'.
        """
        return pieces.join(self._tokenizer, ids, special=special)

    def encode_pairs(
        self, query: str, documents: Sequence[str], max_tokens_per_document: int | None, instruction: str | None = None
    ) -> list[Row]:
        """Turn the query with each document into ids; equal documents get one row, the same object.

        A pair over the limit loses the end of the document, and of the query where that takes more than half of the
        room: transformers' ``longest_first``. ``max_tokens_per_document`` cuts documents before that. Raises InputError
        for an ``instruction`` that the model can't take.
        """
        distinct = list(dict.fromkeys(documents))
        if self._judge:
            asked = self._judge.ask(query, distinct, self.max_tokens, max_tokens_per_document, instruction)
            put = {
                text: Row(ids, None, content, cut) for text, (ids, content, cut) in zip(distinct, asked, strict=True)
            }
            return [put[text] for text in documents]
        if instruction is not None:
            raise InputError("this model takes no instruction; leave it out", "instruction")
        return self._pairs(query, distinct, documents, max_tokens_per_document)

    def budget_after_prompt(self, prompt: str) -> TokenBudget:
        """Tell what ``encode`` has for a document that is too long."""
        own = len(self._ids_of([prompt])[0])
        return TokenBudget(self._room("document") - own, lambda text: len(self._ids_of([prompt + text])[0]) - own)

    def budget_beside_query(self, query: str, instruction: str | None) -> TokenBudget:
        """Tell what ``encode_pairs`` has for a document that is too long."""
        if self._judge:
            return self._judge.room(query, self.max_tokens, instruction)
        room = self.max_tokens - (self._pair or self._single).size
        asked = len(self._ids_of([query])[0])
        return TokenBudget(max(room // 2, room - asked), lambda text: len(self._ids_of([text])[0]))

    def chunk(self, text: str, room: TokenBudget, how: Chunking) -> Chunks:
        """Cut a text that is too long for its place into pieces; of a huge one no more is read than may be in them."""
        late = how.keep == "end"
        read = text[-_HEAD_CHARACTERS:] if late else text[:_HEAD_CHARACTERS]
        spans = self._tokenizer.encode(read, add_special_tokens=False).offsets
        if len(read) < len(text) and len(spans) <= min(room.max_tokens * how.max_chunks, how.max_tokens or len(spans)):
            read = text
            spans = self._tokenizer.encode(read, add_special_tokens=False).offsets
        return chunk(read, spans, room, how)

    def _room(self, role: Role) -> int:
        """Count the tokens that a text and its prompt may have; where tokens have vectors it depends on the role."""
        how = self._multi_vector
        most = min(self.max_tokens, (how and how.max_tokens(role)) or self.max_tokens)
        return max(most - self._single.size, 0)

    def _pairs(
        self, query: str, distinct: Sequence[str], documents: Sequence[str], max_tokens_per_document: int | None
    ) -> list[Row]:
        template = self._pair
        if template is None:
            raise TypeError("this checkpoint takes single texts")
        room = self.max_tokens - template.size
        asked, *answers = self._ids([query, *distinct], self.max_tokens)
        rows = {}
        for text, ids in zip(distinct, answers, strict=True):
            document = ids[:max_tokens_per_document]
            half = room // 2 + (room % 2 if len(asked) > len(document) else 0)  # the odd place is the longer side's
            kept = asked[: max(half, room - len(document))]
            document = document[: room - len(kept)]
            content = len(asked) + len(ids)
            rows[text] = Row(*template.join(kept, document), content, content - len(kept) - len(document))
        return [rows[text] for text in documents]

    def _begin(self, text: str, count: int) -> str:
        encoded = self._tokenizer.encode(text[:_HEAD_CHARACTERS], add_special_tokens=False)
        return text[: encoded.offsets[:count][-1][1]] if count else ""

    def _ids_of(self, texts: list[str]) -> list[list[int]]:
        return self._ids(texts, self.max_tokens)

    def _without_start(self, prompt: str, text: str, room: int) -> list[int]:
        """Give the prompt's ids and as many of the text's last as there is room for."""
        encoded = self._tokenizer.encode(prompt + text[-_HEAD_CHARACTERS:], add_special_tokens=False)
        if len(encoded.ids) <= room:
            encoded = self._tokenizer.encode(prompt + text, add_special_tokens=False)
        own = sum(stop <= len(prompt) for _, stop in encoded.offsets) if prompt else 0
        own = min(own, room)
        return encoded.ids[:own] + encoded.ids[own:][len(encoded.ids) - room :]

    def _ids(self, texts: list[str], enough: int) -> list[list[int]]:
        heads = [text[:_HEAD_CHARACTERS] for text in texts]
        if len(heads) == 1:  # the batch's own threads would take 60 µs to be woken
            found = [self._tokenizer.encode(heads[0], add_special_tokens=False).ids]
        else:
            found = [encoded.ids for encoded in self._tokenizer.encode_batch_fast(heads, add_special_tokens=False)]
        for at, text in enumerate(texts):
            if len(text) > _HEAD_CHARACTERS and len(found[at]) <= enough:
                found[at] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def _encoded(self, text: str) -> Encoding:
        """Read a text by itself, as ``_ids`` does, where its tokens' places are wanted."""
        encoded = self._tokenizer.encode(text[:_HEAD_CHARACTERS], add_special_tokens=False)
        if len(text) > _HEAD_CHARACTERS and len(encoded.ids) <= self.max_tokens:
            encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return encoded

    def _refuse_lost_end_token(self, folder: Path, recipe: Recipe) -> None:
        """Raise CheckpointError where the vector is the end token's and tokenizer.json no longer adds that token.

        transformers 5 follows tokenizer.json alone; earlier versions added the token that tokenizer_config.json asks
        for. E5-Mistral and gte-Qwen2 were trained with it.
        """
        file = folder / "tokenizer_config.json"
        if "lasttoken" not in recipe.pooling:
            return
        if read_optional_json(file, dict[str, Any]).get("add_eos_token") is not True:
            return
        if len({row.ids[-1] for row in self.encode(["a", "b", "c", "1", "2"])}) > 1:
            raise CheckpointError(
                f"{file}: add_eos_token is set, and the model's vector is that of this last token, but tokenizer.json "
                "doesn't add it; add it to the post_processor there"
            )
