"""LLM rerankers of sentence-transformers score with their chat templates as it does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoints import write_files
from llm_reranker_models import (
    CHATS,
    DOCUMENTS,
    INSTRUCTION,
    PLAIN_CHAT,
    QUERY,
    open_llm_reranker,
    write_chat_reranker,
)
from sentence_transformers import CrossEncoder
from torch.nn import Identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_chat_reranker, tmp_path)


def by_sentence_transformers(folder: Path, instruction: str | None = None) -> Any:
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True, activation_fn=Identity())
    return model.predict([(QUERY, document) for document in DOCUMENTS], prompt=instruction, show_progress_bar=False)


@pytest.mark.parametrize("chat", CHATS)
def test_scores_are_sentence_transformers(chat: str, folder: Callable[..., Path]) -> None:
    """Truncated or not, also where a line end and the character before it are one token."""
    made = folder(CHATS[chat])

    scores = open_llm_reranker(made, "torch").scores(DOCUMENTS)

    np.testing.assert_allclose(scores, by_sentence_transformers(made), rtol=0, atol=1e-4)
    assert np.std(scores) > 0.1


def test_an_instruction_becomes_the_system_message(folder: Callable[..., Path]) -> None:
    made = folder(CHATS["with an instruction"])
    opened = open_llm_reranker(made, "torch")

    scores = opened.scores(DOCUMENTS, INSTRUCTION)

    np.testing.assert_allclose(scores, by_sentence_transformers(made, INSTRUCTION), rtol=0, atol=1e-4)
    assert np.abs(scores - opened.scores(DOCUMENTS)).max() > 1e-2


def test_the_default_prompt_is_the_default_instruction(folder: Callable[..., Path]) -> None:
    made = folder(CHATS["with an instruction"])
    default = {"prompts": {"mine": "Find opposites"}, "default_prompt_name": "mine"}
    write_files(made, {"config_sentence_transformers.json": {"model_type": "CrossEncoder"} | default})
    opened = open_llm_reranker(made, "torch")

    np.testing.assert_allclose(opened.scores(DOCUMENTS), by_sentence_transformers(made), rtol=0, atol=1e-4)
    assert opened.rows(DOCUMENTS, "Find opposites") == opened.rows(DOCUMENTS)


def test_the_logit_of_yes_alone_may_be_the_score(folder: Callable[..., Path]) -> None:
    made = folder(PLAIN_CHAT, "tokenizer_config.json", false_token_id=None)

    scores = open_llm_reranker(made, "torch").scores(DOCUMENTS)

    np.testing.assert_allclose(scores, by_sentence_transformers(made), rtol=0, atol=1e-4)
