"""Reads rerankers that are causal language models: the prompt for a pair, and the answer tokens that score it.

Both come from the folder, or from the model's family by its name; that row states its source.
"""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

from nearfar.core.errors import CheckpointError
from nearfar.core.types import Task
from nearfar.models.files.causal_models import has_causal_mask
from nearfar.models.files.chat_template import ChatTemplateError, has_chat_template, has_pair_template, render_pair
from nearfar.models.files.config import ModelConfig, SentenceConfig, find_sentence_file
from nearfar.models.files.json_files import read_json
from nearfar.models.files.tokenizer.tokenizer_json import open_tokenizer
from nearfar.models.reading.families import find_family
from nearfar.models.reading.modules import find_logit_score
from nearfar.models.recipe.recipe import INSTRUCTION, AnswerTokens, LlmReranker, PairPrompt


class _Reranker(Struct, frozen=True, kw_only=True):
    """A family of rerankers, recognized by config.json's model_type and a pattern of the lowercased name."""

    model_type: str
    pattern: str
    prompt: PairPrompt
    # The answers as words, "yes" before "no" if there is one; each must be one token.
    answers: tuple[str, ...]
    # The page or file that states the prompt and the answers.
    source: str


class _LogitScore(Struct, forbid_unknown_fields=True):
    """The config.json of sentence-transformers' LogitScore."""

    true_token_id: int
    false_token_id: int | None = None
    module_input_name: str = "causal_logits"


def _with_default(segments: tuple[str, ...], instruction: str, default: str, query_ratio: float = 1.0) -> PairPrompt:
    """Return a prompt that has ``default`` in place of ``instruction`` for requests without one."""
    plain = tuple(text.replace(instruction, default) for text in segments)
    return PairPrompt(segments=plain, segments_with_instruction=segments, query_ratio=query_ratio)


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
    "instruction: {instruction}\nquery: {query}",
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
_GEMMA = ("<bos>", "A: {query}", "\n", "B: {document}", "\n", INSTRUCTION)
_CONTAINS_ANSWER = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)
# Tokens of its answers and its prompt, and the size of the chat models' vocabulary.
_QWEN3_WORDS = ("yes", "no", "<think>", "</think>")
_QWEN3_CHAT_ROWS = 151_936
_QUERY_RATIO = 3 / 4  # max_length * 3 // 4 in both sources
_RERANKERS = (
    _Reranker(
        model_type="qwen3",
        pattern="qwen3-reranker",
        prompt=_with_default(_QWEN3, INSTRUCTION, _WEB_SEARCH),
        answers=("yes", "no"),
        source="https://huggingface.co/Qwen/Qwen3-Reranker-0.6B",
    ),
    _Reranker(
        model_type="qwen2",
        pattern="mxbai-rerank-.*v2",
        prompt=_with_default(_MXBAI, f"instruction: {INSTRUCTION}\n", "", _QUERY_RATIO),
        answers=("1", "0"),
        source="https://github.com/mixedbread-ai/mxbai-rerank, mxbai_rerank_v2.py",
    ),
    _Reranker(
        model_type="gemma",
        pattern="bge-reranker-v2-gemma",
        prompt=_with_default(_GEMMA, INSTRUCTION, _CONTAINS_ANSWER, _QUERY_RATIO),
        answers=("Yes",),
        source="https://huggingface.co/BAAI/bge-reranker-v2-gemma; the instruction is its compute_score's prompt",
    ),
)


def read_llm_reranker(
    folder: Path, config: ModelConfig, sentence: SentenceConfig, names: tuple[str, ...], task: Task | None
) -> LlmReranker | None:
    """Read the prompt and the answer tokens of a causal language model; return None if it isn't a reranker.

    Raises CheckpointError for a reranker without a known prompt, or with a tokenizer that lacks the answers. With the
    task ``rank``, also for a language model that isn't known as a reranker: cosines of its vectors would mean nothing.
    """
    family = _find_known_reranker(config.model_type, *names)
    if score := find_logit_score(folder):
        answers = read_json(score / "config.json", _LogitScore)
        if answers.module_input_name != "causal_logits":
            raise CheckpointError(
                f"{score / 'config.json'}: works on {answers.module_input_name}; only causal_logits is supported"
            )
        _refuse_plain_pairs(folder, sentence)
        return LlmReranker(_read_prompt(folder, family), AnswerTokens(answers.true_token_id, answers.false_token_id))
    named = config.architectures
    generates = any(name.endswith("ForCausalLM") for name in named) if named else has_causal_mask(config)
    embeds = (folder / "modules.json").is_file() or find_family(*names) is not None
    if not family and generates and not embeds:
        family = _recognize(folder, config)
        if family is None and (task == "rank" or has_pair_template(folder)):
            raise CheckpointError(
                f"{folder}: is a language model, but isn't known as a reranker: nothing states which answers score a "
                f"pair; add sentence-transformers' modules.json with LogitScore, or give the folder "
                'its maker\'s name, such as Qwen3-Reranker-0.6B; task = "embed" serves its vectors'
            )
    if not family:
        return None
    return LlmReranker(family.prompt, AnswerTokens(*_token_ids(folder, family.answers)))


def find_pair_prompt(model_type: str, *names: str) -> LlmReranker | None:
    """Return the prompt of a reranker that was converted to a sequence classifier, None if its family isn't known."""
    family = _find_known_reranker(model_type, *names)
    return LlmReranker(family.prompt) if family else None


def _refuse_plain_pairs(folder: Path, sentence: SentenceConfig) -> None:
    """Raise CheckpointError where sentence-transformers would send pairs without a chat template to LogitScore."""
    if sentence.modality_config and "message" not in sentence.modality_config:
        raise CheckpointError(
            f"{find_sentence_file(folder)}: modality_config has no message, so that pairs would have no prompt, which "
            "isn't supported for LogitScore; remove modality_config to use the chat template"
        )


def _recognize(folder: Path, config: ModelConfig) -> _Reranker | None:
    """Return Qwen3-Reranker's family for such a model under another name.

    It differs from Qwen3's chat models in its vocabulary, and from Qwen3-Embedding in that texts get no end token.
    """
    if config.model_type != "qwen3" or config.vocab_size in {None, _QWEN3_CHAT_ROWS}:
        return None
    tokenizer = open_tokenizer(folder).tokenizer
    is_known = all(tokenizer.encode(word).ids == [tokenizer.token_to_id(word)] for word in _QWEN3_WORDS)
    return next(family for family in _RERANKERS if family.model_type == "qwen3") if is_known else None


def _find_known_reranker(model_type: str, *names: str) -> _Reranker | None:
    return next(
        (
            family
            for family in _RERANKERS
            if family.model_type == model_type and any(re.search(family.pattern, name.lower()) for name in names)
        ),
        None,
    )


def _read_prompt(folder: Path, family: _Reranker | None) -> PairPrompt:
    """Return the prompt of the folder's chat template, or the family's if that template isn't for pairs.

    Without a template, sentence-transformers would send pairs without a prompt.
    """
    try:
        return render_pair(folder)
    except ChatTemplateError as error:
        if family and has_chat_template(folder):
            return family.prompt
        raise CheckpointError(
            f"{folder}: is a reranker without a known prompt: {error}; add the chat_template.jinja that "
            "sentence-transformers uses for it"
        ) from error


def _token_ids(folder: Path, words: tuple[str, ...]) -> list[int]:
    tokenizer = open_tokenizer(folder).tokenizer
    encoded = [tokenizer.encode(word, add_special_tokens=False).ids for word in words]
    if any(len(ids) != 1 for ids in encoded):
        raise CheckpointError(
            f"{folder}: its tokenizer has no single tokens for {' and '.join(words)}, so it isn't the reranker "
            "that its name says"
        )
    return [ids[0] for ids in encoded]
