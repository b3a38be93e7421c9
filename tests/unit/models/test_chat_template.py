"""LLM rerankers of sentence-transformers are run with the prompts of their chat templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoints import write_files
from llm_reranker_models import (
    DOCUMENTS,
    GENERATES,
    INSTRUCTION,
    LIMIT,
    LOGIT_SCORE,
    PLAIN_CHAT,
    QUERY,
    open_llm_reranker,
    write_llm_reranker,
)
from texts import varied_texts

from nearfar.core.errors import CheckpointError, InputError
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PART = '{{ messages | selectattr("role", "eq", "%s") | map(attribute="content") | first%s }}'
# Like published ones: an instruction with a default, and a part for add_generation_prompt.
CHATS = {
    "with an instruction": (
        "<|im_start|>system\n"
        + _PART % ("system", ' | default("Retrieve what answers")')
        + "<|im_end|>\n<|im_start|>user\n"
        + _PART % ("query", "")
        + "\n"
        + _PART % ("document", "")
        + "<|im_end|>\n{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
    ),
    "in turns": (
        "{% for message in messages %}{% set role = 'system' if message.role == 'query' else 'user' %}"
        "<|im_start|>{{ role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    ),
    "with an end of line behind the document": PLAIN_CHAT,
}

TOKENIZER = {"tokenizer_class": "TokenizersBackend", "pad_token": "<pad>", "padding_side": "left"}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def write(chat: str | None, place: str = "chat_template.jinja", **score: object) -> Path:
        folder = write_llm_reranker(tmp_path, "qwen3")
        files: dict[str, object] = {"1_LogitScore/config.json": {"true_token_id": 300, "false_token_id": 301} | score}
        if chat is not None:
            files[place] = (
                chat if place.endswith("jinja") else {"model_max_length": LIMIT, "chat_template": chat} | TOKENIZER
            )
        return write_files(folder, LOGIT_SCORE | files)

    return write


def by_sentence_transformers(folder: Path, instruction: str | None = None) -> Any:
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

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


def test_a_template_without_a_place_for_an_instruction_takes_none(folder: Callable[..., Path]) -> None:
    opened = open_llm_reranker(folder(PLAIN_CHAT), None)

    with pytest.raises(InputError, match="this model takes no instruction"):
        opened.rows(DOCUMENTS, INSTRUCTION)


def test_the_logit_of_yes_alone_may_be_the_score(folder: Callable[..., Path]) -> None:
    made = folder(PLAIN_CHAT, "tokenizer_config.json", false_token_id=None)

    scores = open_llm_reranker(made, "torch").scores(DOCUMENTS)

    np.testing.assert_allclose(scores, by_sentence_transformers(made), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("chat", "why"),
    [
        (None, "it has no chat template"),
        ("{{ messages[-1].content }}", "doesn't insert the query and the document unchanged, once each"),
        (
            PLAIN_CHAT.replace("| first", "| first | trim"),
            "doesn't insert the query and the document unchanged, once each",
        ),
        (PLAIN_CHAT + PLAIN_CHAT, "doesn't insert the query and the document unchanged, once each"),
        ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "puts the document before the query"),
        (PLAIN_CHAT + "{query}", "itself contains {query}"),
        ("{{ raise_exception('no') }}", "can't be rendered with a pair"),
        ("{% for %}", "can't be rendered with a pair"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "can't be rendered with a pair"),
    ],
)
def test_a_template_that_is_not_for_pairs_is_refused(chat: str | None, why: str, folder: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError) as refused:
        read_recipe(folder(chat))

    assert why in str(refused.value)
    assert str(refused.value).endswith("add the chat_template.jinja that sentence-transformers uses for it")


def test_without_a_template_for_pairs_the_family_is_found_by_name(folder: Callable[..., Path]) -> None:
    """Qwen3-Reranker's own template is for chats."""
    made = folder("{% for m in messages %}{{ m.role | upper }}{% endfor %}")

    known = open_llm_reranker(made, None, "Qwen/Qwen3-Reranker-0.6B")

    rows = open_llm_reranker(write_llm_reranker(made.parent, "qwen3-reranker"), None).rows(varied_texts(5))
    assert rows == known.rows(varied_texts(5))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"processing_kwargs": {"text": {"max_length": 5}}}, "processing_kwargs text isn't supported"),
        ({"processing_kwargs": {"chat_template": {"max_length": 5}}}, "processing_kwargs max_length isn't supported"),
        ({"modality_config": {"message": {"format": "structured"}}}, "the message format structured isn't supported"),
    ],
)
def test_unsupported_options_are_refused(
    changed: dict[str, object], expected: str, folder: Callable[..., Path]
) -> None:
    made = write_files(folder(PLAIN_CHAT), {"sentence_bert_config.json": GENERATES | changed})

    with pytest.raises(CheckpointError, match=expected):
        read_recipe(made)


def test_an_unsupported_activation_is_refused(folder: Callable[..., Path]) -> None:
    made = write_files(folder(PLAIN_CHAT), {"config_sentence_transformers.json": {"activation_fn": "torch.nn.Tanh"}})

    with pytest.raises(CheckpointError, match="these are: Identity, Sigmoid"):
        read_recipe(made)
