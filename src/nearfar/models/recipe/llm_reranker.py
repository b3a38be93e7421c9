"""Rerankers that are language models: the prompt that a pair is put into, and the answer tokens."""

from __future__ import annotations

from msgspec import Struct

DOCUMENT, QUERY, INSTRUCTION = "{document}", "{query}", "{instruction}"


class Question(Struct, frozen=True, kw_only=True):
    """How a pair is put: texts whose tokens are joined, each tokenised by itself, as merges across them would differ.

    One has a place for ``{query}``, the same or a later one for ``{document}``. ``told`` are the texts for a caller
    who gives an ``{instruction}``, None where the model takes none.
    """

    texts: tuple[str, ...]
    told: tuple[str, ...] | None = None


class Answer(Struct, frozen=True):
    """The tokens that mean yes and no; without ``no`` the logit of ``yes`` alone is the score."""

    yes: int
    no: int | None = None


class Judge(Struct, frozen=True):
    """A question, and the answer's tokens; without those the model was made a classifier, whose head has the score."""

    question: Question
    answer: Answer | None = None
