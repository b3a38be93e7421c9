"""Rerankers that are language models: asked whether a document answers, they say yes or no.

The score is how much likelier yes is than no as the next token, so only those two of the vocabulary's logits count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from nearfar.errors import CheckpointError
from nearfar.models.files import read_json
from nearfar.models.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


class Judge(Struct, frozen=True, kw_only=True):
    """How the question is put: ``before``, the pair's text, ``after``; and the tokens that mean yes and no.

    ``text`` has places for ``{instruction}``, ``{query}`` and ``{document}``. ``no`` is None where the logit of ``yes``
    alone is the score, and ``yes`` as well where a classifier's head gives it.
    """

    before: str
    text: str
    after: str
    instruction: str
    yes: int | None = None
    no: int | None = None


class _LogitScore(Struct):
    """sentence-transformers' module of that name."""

    true_token_id: int
    false_token_id: int | None = None


# As the model's page puts it: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B.
_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_TEXT = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
QWEN3_RERANKER = Judge(before=_BEFORE, text=_TEXT, after=_AFTER, instruction=_INSTRUCTION)


def is_qwen3_reranker(model_type: str, *names: str) -> bool:
    """Tell by its kind and its names whether a model is Qwen3-Reranker or was made of it."""
    return model_type == "qwen3" and any("qwen3-reranker" in name.lower() for name in names)


def read_judge(folder: Path, score: Path | None) -> Judge:
    """Read which tokens mean yes and no: from the folder of LogitScore's config, or else from the vocabulary.

    Raises CheckpointError where they aren't there.
    """
    if score:
        said = read_json(score / "config.json", _LogitScore)
        return msgspec.structs.replace(QWEN3_RERANKER, yes=said.true_token_id, no=said.false_token_id)
    tokenizer = open_tokenizer(folder)
    yes, no = tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")
    if yes is None or no is None:
        raise CheckpointError(f"{folder}: the tokenizer has no tokens yes and no, so it can't be a Qwen3-Reranker")
    return msgspec.structs.replace(QWEN3_RERANKER, yes=yes, no=no)
