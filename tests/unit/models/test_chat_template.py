"""LLM rerankers of sentence-transformers are run with the prompts of their chat templates."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from checkpoints import write_files
from llm_reranker_models import (
    DOCUMENTS,
    GENERATES,
    INSTRUCTION,
    PLAIN_CHAT,
    open_llm_reranker,
    write_chat_reranker,
    write_llm_reranker,
)
from texts import varied_texts

from nearfar.core.errors import CheckpointError, InputError
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_chat_reranker, tmp_path)


def test_a_template_without_a_place_for_an_instruction_takes_none(folder: Callable[..., Path]) -> None:
    opened = open_llm_reranker(folder(PLAIN_CHAT), None)

    with pytest.raises(InputError, match="this model takes no instruction"):
        opened.rows(DOCUMENTS, INSTRUCTION)


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
        ("{{ raise_exception('no') }}", "can't be rendered ("),
        ("{% for %}", "can't be rendered ("),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "can't be rendered ("),
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
        ({"processing_kwargs": {"text": {"add_special_tokens": True}}}, "text.add_special_tokens = True, which isn't"),
        (
            {"processing_kwargs": {"chat_template": {"continue_final_message": True}}},
            "processing_kwargs continue_final_message isn't supported",
        ),
    ],
)
def test_unsupported_options_are_refused(
    changed: dict[str, object], expected: str, folder: Callable[..., Path]
) -> None:
    made = write_files(folder(PLAIN_CHAT), {"sentence_bert_config.json": GENERATES | changed})

    with pytest.raises(CheckpointError, match=expected):
        read_recipe(made)


def test_options_are_read_from_each_name_of_the_file(folder: Callable[..., Path]) -> None:
    options = {"processing_kwargs": {"chat_template": {"continue_final_message": True}}}
    made = write_files(folder(PLAIN_CHAT), {"sentence_roberta_config.json": GENERATES | options})
    (made / "sentence_bert_config.json").unlink()

    with pytest.raises(CheckpointError, match=r"sentence_roberta_config\.json: .* continue_final_message"):
        read_recipe(made)


def test_an_unsupported_activation_is_refused(folder: Callable[..., Path]) -> None:
    made = write_files(folder(PLAIN_CHAT), {"config_sentence_transformers.json": {"activation_fn": "torch.nn.ReLU"}})

    with pytest.raises(CheckpointError, match="these are: Identity, Sigmoid"):
        read_recipe(made)
