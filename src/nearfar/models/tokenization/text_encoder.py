"""Encodes texts and pairs of texts to rows: token ids with special ones, truncated to the model's limit."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from msgspec import structs

from nearfar.core.errors import CheckpointError, InputError
from nearfar.core.types import KeepSide, Role
from nearfar.models.files.tokenizer.tokenizer_json import open_tokenizer
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization import sample_texts
from nearfar.models.tokenization.chunking import Chunking, Chunks, TokenBudget, split_text
from nearfar.models.tokenization.embedding_table import EmbeddingTable
from nearfar.models.tokenization.pair_prompt import ChatEncoder, ChatMessages, PairPromptEncoder
from nearfar.models.tokenization.plain_tokenizer import PlainTokenizer, count_prompt_tokens
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.special_tokens import (
    PairTemplate,
    TextTemplate,
    check_end_token,
    check_token_types,
    cut_to,
    prepare_token_vectors,
    register_markers,
)


class TextEncoder:
    """The tokenizer of one checkpoint, with its limit and special tokens. Every method is thread-safe."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        opened = open_tokenizer(folder)
        self.tokenizer = PlainTokenizer(opened, recipe.max_tokens, lower_case=recipe.lower_case)
        self._default_side = self.tokenizer.default_side
        self._multi_vector = recipe.multi_vector
        if recipe.multi_vector:
            register_markers(opened.tokenizer, recipe.multi_vector)
        self.max_tokens = recipe.max_tokens
        self._leaves_out_prompt = recipe.leaves_out_prompt
        self.messages = ChatMessages(folder)
        self._chat = ChatEncoder(recipe.chat, self.tokenizer.encode, folder) if recipe.chat else None
        # A chat template has the special tokens.
        bare = self.tokenizer.encode_whole("a")
        single = bare if recipe.chat else opened.tokenizer.encode("a")
        self._single = TextTemplate(single, bare)
        self._query_prefix = recipe.pair_prompt
        self._embeddings = EmbeddingTable(folder, opened.tokenizer)
        self._embeddings.check_template(single.ids, folder)
        self._pair_prompt = self._open_pair_prompt(folder, recipe)
        self._pair = None
        if recipe.task == "score" and not self._pair_prompt:
            with_types = recipe.type_ids and opened.has_types
            self._pair = PairTemplate(opened.tokenizer.encode("a", "a"), with_types=with_types, keep=self._default_side)
        if opened.has_types:
            check_token_types(folder, recipe, single)
        if recipe.max_tokens <= (self._pair_prompt or self._pair or self._single).size:
            raise CheckpointError(
                f"{folder}: a limit of {recipe.max_tokens} tokens leaves no room for text; set max_tokens for this "
                "model, or correct max_seq_length in sentence_bert_config.json or model_max_length in "
                "tokenizer_config.json"
            )
        if "lasttoken" in recipe.pooling and not recipe.chat:
            check_end_token(folder, self.encode)

    def _open_pair_prompt(self, folder: Path, recipe: Recipe) -> PairPromptEncoder | None:
        if recipe.llm_reranker is None:
            return None
        if self._default_side == "end":
            raise CheckpointError(
                f"{folder / 'tokenizer_config.json'}: truncation_side = left would cut the start of the reranker's "
                "prompt; remove it"
            )
        return PairPromptEncoder(recipe.llm_reranker.prompt, self.tokenizer.encode)

    def sample_rows(self, max_tokens: int | None = None) -> list[Row]:
        """Return rows of sample texts of the kind that the engine will run, the first of them short.

        With ``max_tokens`` only the first dozen, and others while there are fewer tokens.
        """
        if self._pair or self._pair_prompt:
            rows = [
                structs.replace(row, query=at)
                for at, query in enumerate(sample_texts.QUERIES)
                for row in self.encode_pairs(query, sample_texts.documents(at), None)
            ]
        else:
            rows = self.encode([*sample_texts.TEXTS, sample_texts.LONG])
        chosen: list[Row] = []
        for row in rows:
            used = sum(len(other.ids) for other in chosen)
            if max_tokens is None or len(chosen) < sample_texts.MIN_SAMPLES or used + len(row.ids) <= max_tokens:
                chosen.append(row)
        return chosen

    def encode(  # noqa: PLR0913 — each is one request's own choice
        self,
        texts: Sequence[str],
        prompt: str = "",
        max_tokens: int | None = None,
        *,
        count_up_to: int | None = None,
        keep: KeepSide = "start",
        role: Role = "document",
    ) -> list[Row]:
        """Encode each text after ``prompt``, truncated to the model's limit or a smaller ``max_tokens``.

        Truncation cuts the text's end, or its start to ``keep`` the end, but not the prompt; a tokenizer that truncates
        on the left cuts the start, prompt included, unless a request chooses. ``role`` matters for
        models with one vector a token: they may have a limit for each role, and expand queries. Equal texts share one
        Row object. A text with more than ``count_up_to`` tokens (or the model's limit, if larger) in its first 100,000
        characters is not tokenized further: its ids are the same, and its ``token_count`` is a lower bound.
        """
        distinct = list(dict.fromkeys(texts))
        composed = [self._compose(prompt, text) for text in distinct] if prompt or self._chat else distinct
        encoded = self.tokenizer.encode(composed, count_up_to or 0)
        limit = min(self._text_limit(role), max_tokens or self.max_tokens)
        unpooled = self._count_unpooled(prompt, limit) if self._leaves_out_prompt and prompt else 0
        rows = {}
        for text, ids in zip(distinct, encoded, strict=True):
            if self._chat:
                kept = self._chat.truncate(ids, limit, prompt, keep)
            elif len(ids) <= limit:
                kept = ids
            elif keep == "end":
                kept = self.tokenizer.encode_end(prompt, text, limit)
            else:
                kept = cut_to(ids, limit, self._default_side)
            whole = self._single.prefix + kept + self._single.suffix
            if len(whole) <= unpooled:
                whole = []  # the prompt's last token may contain the text; its vector is zero then, as without tokens
            row = Row(whole, None, len(ids), max(0, len(ids) - limit), unpooled=unpooled)
            rows[text] = prepare_token_vectors(row, self._multi_vector, role) if self._multi_vector else row
        if self._embeddings.missing:
            self._embeddings.check(rows.values())
        return [*map(rows.__getitem__, texts)]

    def variant(self, *, special: bool, rendered: bool) -> TextEncoder:
        """Return an encoder with or without special tokens, and for texts that a chat template has ``rendered``.

        Raises InputError for a multi-vector model without them: their places decide which tokens have a vector.
        """
        if self._multi_vector and not special:
            raise InputError("add_special_tokens: this model needs its special tokens; send true", "add_special_tokens")
        other = copy.copy(self)
        other._chat = None if rendered else self._chat  # noqa: SLF001 — of this class
        if other._chat is None:  # noqa: SLF001
            bare, whole = (self.tokenizer.encode_whole("a", special=added) for added in (False, special))
            other._single = TextTemplate(whole, bare)  # noqa: SLF001
        return other

    def encode_concatenated(self, texts: Sequence[str], prompt: str = "") -> tuple[Row, list[tuple[int, int]]]:
        """Encode all texts into one row, the prompt before the first, for late chunking.

        Returns the row and each text's span in its ids. Nothing is cut: ``truncated_tokens`` counts the excess.
        """
        if self._chat:
            raise InputError("late chunking isn't possible with this model's chat template", "late_chunking")
        first = self.tokenizer.encode_start(prompt + texts[0])
        prompt_tokens = count_prompt_tokens(prompt, first)
        ids = [*self._single.prefix, *first.ids[:prompt_tokens]]
        spans = []
        for found in (first.ids[prompt_tokens:], *(self.tokenizer.encode([*texts[1:]]) if texts[1:] else ())):
            spans.append((len(ids), len(ids) + len(found)))
            ids += found
        count = len(ids) - len(self._single.prefix)
        row = Row([*ids, *self._single.suffix], None, count, max(count - self._text_limit("document"), 0))
        self._embeddings.check([row])
        return row, spans

    def encode_pairs(
        self, query: str, documents: Sequence[str], max_tokens_per_document: int | None, instruction: str | None = None
    ) -> list[Row]:
        """Encode the query with each document; equal documents share one Row object.

        Documents are first cut to ``max_tokens_per_document``. A pair over the model's limit loses the document's end,
        and the query's end beyond half of the space. Raises InputError for an ``instruction`` that isn't supported.
        """
        distinct = list(dict.fromkeys(documents))
        if self._pair_prompt:
            rows = self._pair_prompt.encode(query, distinct, self.max_tokens, max_tokens_per_document, instruction)
        elif instruction is not None:
            raise InputError("this model takes no instruction; leave it out", "instruction")
        elif self._pair is None:
            raise TypeError("this checkpoint takes single texts")
        else:
            query_ids, *encoded = self.tokenizer.encode([self._query_prefix + query, *distinct])
            rows = [self._pair.build(query_ids, ids, self.max_tokens, max_tokens_per_document) for ids in encoded]
        self._embeddings.check(rows)
        by_text = dict(zip(distinct, rows, strict=True))
        return [by_text[text] for text in documents]

    def budget_after_prompt(self, prompt: str) -> TokenBudget:
        """Return the budget of a document after this prompt."""
        own = len(self.tokenizer.encode([self._compose(prompt, "")])[0])
        return TokenBudget(
            self._text_limit("document") - own,
            lambda text: len(self.tokenizer.encode([self._compose(prompt, text)])[0]) - own,
        )

    def budget_beside_query(self, query: str, instruction: str | None) -> TokenBudget:
        """Return the budget of a document in a pair with this query."""
        if self._pair_prompt:
            return self._pair_prompt.budget(query, self.max_tokens, instruction)
        space = self.max_tokens - (self._pair or self._single).size
        query_tokens = len(self.tokenizer.encode([self._query_prefix + query])[0])
        return TokenBudget(max(space // 2, space - query_tokens), lambda text: len(self.tokenizer.encode([text])[0]))

    def chunk(self, text: str, budget: TokenBudget, how: Chunking) -> Chunks:
        """Split a text that is over its budget into chunks; of a huge text, tokenize no more than they may contain."""
        most = budget.max_tokens * how.max_chunks
        part, offsets = self.tokenizer.find_offsets(text, min(most, how.max_tokens or most), how.keep)
        return split_text(part, offsets, budget, how)

    def _compose(self, prompt: str, text: str) -> str:
        return self._chat.render(prompt, text) if self._chat else prompt + text

    def _count_unpooled(self, prompt: str, limit: int) -> int:
        """Count the tokens of the prompt alone, without a special one at their end, as sentence-transformers does."""
        ids = [*self._single.prefix, *self.tokenizer.encode([prompt])[0][:limit], *self._single.suffix]
        return len(ids) - (bool(ids) and self.tokenizer.is_special(ids[-1]))

    def _text_limit(self, role: Role) -> int:
        """Return how many tokens a text and its prompt may have, without special tokens."""
        limit = self._multi_vector.max_tokens(role) if self._multi_vector else None
        return max(min(self.max_tokens, limit or self.max_tokens) - self._single.size, 0)
