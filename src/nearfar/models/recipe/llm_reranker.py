"""Rerankers that are language models: the prompt for a pair, and the answer tokens."""

from __future__ import annotations

from msgspec import Struct

DOCUMENT, QUERY, INSTRUCTION = "{document}", "{query}", "{instruction}"


class PairPrompt(Struct, frozen=True, kw_only=True):
    """The prompt for a query and a document, as segments that are tokenized separately and then concatenated.

    Tokenizing the joined text instead would merge tokens across the segments. One segment contains ``{query}``; the
    same one, or a later one, contains ``{document}``.
    """

    segments: tuple[str, ...]
    # The segments for a request with an instruction, which has ``{instruction}`` in one of them; None: not supported.
    segments_with_instruction: tuple[str, ...] | None = None


class AnswerTokens(Struct, frozen=True):
    """The token ids of the answers. A score is logit(yes) less logit(no), or logit(yes) where there is no ``no``."""

    yes: int
    no: int | None = None


class LlmReranker(Struct, frozen=True):
    """A causal language model that scores pairs."""

    prompt: PairPrompt
    # None for a checkpoint that was converted to a sequence classifier: its head computes the score.
    answer_tokens: AnswerTokens | None = None
