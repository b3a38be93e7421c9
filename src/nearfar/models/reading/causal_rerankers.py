"""Rerankers that are language models: asked whether a document answers a query, they say yes or no.

A question is how that is put to one, and an answer is the tokens it may say; the score is how much likelier yes is
than no. Both are read from the folder, or known by the family's name: each row here has its source.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from nearfar.core.errors import CheckpointError
from nearfar.models.files.chat_template import NoPairTemplate, render_pair
from nearfar.models.files.json_files import read_json
from nearfar.models.files.tokenizer_json import open_tokenizer
from nearfar.models.reading.modules import find_logit_score
from nearfar.models.recipe.llm_reranker import DOCUMENT, INSTRUCTION, QUERY, AnswerTokens, LlmReranker, PairPrompt

if TYPE_CHECKING:
    from pathlib import Path


class _Known(Struct, frozen=True, kw_only=True):
    """A family: its kind and the pattern of its names, what it is asked, its words for yes and no, and who says so."""

    model_type: str
    pattern: str
    question: PairPrompt
    yes: str
    no: str | None
    source: str


class _LogitScore(Struct):
    """sentence-transformers' module of that name."""

    true_token_id: int
    false_token_id: int | None = None
    module_input_name: str = "causal_logits"


_QWEN3 = (
    (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    ),
    "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)
_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
_MXBAI = (
    (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    ),
    "query: {query}",
    "\n",
    "document: {document}",
    "\n",
    (
        "You are a search relevance expert who evaluates how well documents match search queries. For each query-"
        "document pair, carefully analyze the semantic relationship between them, then provide your binary relevance "
        "judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    ),
    "<|im_end|>\n<|im_start|>assistant\n",
)
_GEMMA = (
    "<bos>",
    "A: {query}",
    "\n",
    "B: {document}",
    "\n",
    (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
        "prediction of either 'Yes' or 'No'."
    ),
)
KNOWN = (
    _Known(
        model_type="qwen3",
        pattern="qwen3-reranker",
        question=PairPrompt(
            segments=tuple(text.replace(INSTRUCTION, _WEB_SEARCH) for text in _QWEN3), segments_with_instruction=_QWEN3
        ),
        yes="yes",
        no="no",
        source="https://huggingface.co/Qwen/Qwen3-Reranker-0.6B",
    ),
    _Known(
        model_type="qwen2",
        pattern="mxbai-rerank-.*v2",
        question=PairPrompt(
            segments=_MXBAI,
            segments_with_instruction=(_MXBAI[0], "instruction: {instruction}\nquery: {query}", *_MXBAI[2:]),
        ),
        yes="1",
        no="0",
        source="https://github.com/mixedbread-ai/mxbai-rerank, mxbai_rerank_v2.py",
    ),
    _Known(
        model_type="gemma",
        pattern="bge-reranker-v2-gemma",
        question=PairPrompt(segments=_GEMMA, segments_with_instruction=(*_GEMMA[:-1], INSTRUCTION)),
        yes="Yes",
        no=None,
        source="https://huggingface.co/BAAI/bge-reranker-v2-gemma; the instruction is its compute_score's prompt",
    ),
)


def read_llm_reranker(folder: Path, model_type: str, *names: str) -> LlmReranker | None:
    """Read what a language model is asked and how it answers; None for one that isn't a reranker.

    Raises CheckpointError for a reranker whose question isn't known, or whose tokenizer lacks the words.
    """
    known = _known(model_type, *names)
    score = find_logit_score(folder)
    if score:
        said = read_json(score / "config.json", _LogitScore)
        if said.module_input_name != "causal_logits":
            raise CheckpointError(f"{score / 'config.json'}: works on {said.module_input_name}, not on the logits")
        return LlmReranker(_read_question(folder, known), AnswerTokens(said.true_token_id, said.false_token_id))
    if not known:
        return None
    words = [known.yes] if known.no is None else [known.yes, known.no]
    return LlmReranker(known.question, AnswerTokens(*_tokens(folder, words)))


def find_pair_prompt(model_type: str, *names: str) -> LlmReranker | None:
    """Tell what a classifier that was made of a language model is asked: the same as before, if it is known."""
    known = _known(model_type, *names)
    return LlmReranker(known.question) if known else None


def _known(model_type: str, *names: str) -> _Known | None:
    return next(
        (
            known
            for known in KNOWN
            if known.model_type == model_type and any(re.search(known.pattern, name.lower()) for name in names)
        ),
        None,
    )


def _read_question(folder: Path, known: _Known | None) -> PairPrompt:
    """Take the question from the folder's chat template; where that has no place for a pair, as the family's is."""
    try:
        chat = render_pair(folder, QUERY, DOCUMENT, INSTRUCTION)
    except NoPairTemplate as error:
        if known:
            return known.question
        raise CheckpointError(
            f"{folder}: a reranker that is a language model, and how a pair is put to it isn't known: {error}; "
            "add the chat_template.jinja with which sentence-transformers runs it"
        ) from error
    return PairPrompt(
        segments=(chat.plain,),
        segments_with_instruction=None if chat.with_instruction is None else (chat.with_instruction,),
    )


def _tokens(folder: Path, words: list[str]) -> list[int]:
    tokenizer = open_tokenizer(folder)
    found = [tokenizer.encode(word, add_special_tokens=False).ids for word in words]
    if any(len(ids) != 1 for ids in found):
        raise CheckpointError(
            f"{folder}: the tokenizer has no tokens {' and '.join(words)}, so it can't be the reranker it is called"
        )
    return [ids[0] for ids in found]
