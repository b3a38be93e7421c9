"""A language model that reranks is known by its files, or refused where it is asked to rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import make_tokenizer, write_files

from nearfar.core.errors import CheckpointError
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from pathlib import Path

QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 8, "vocab_size": 151_669}
POOLED: dict[str, object] = {
    "modules.json": [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
    "1_Pooling/config.json": {"pooling_mode_lasttoken": True},
}
ANSWERS = ("yes", "no", "<think>", "</think>")
PAIRS = "{{ messages | selectattr('role', 'eq', 'query') }} {{ messages | selectattr('role', 'eq', 'document') }}"


def write_model(folder: Path, added: tuple[str, ...] = ANSWERS, words: Any = "bytes", **config: Any) -> Path:
    tokenizer = make_tokenizer(words)
    tokenizer.add_tokens(list(added))
    tokenizer.save_pretrained(folder)
    return write_files(folder, {"config.json": QWEN3 | config, "model.safetensors": ""})


def test_a_renamed_qwen3_reranker_is_known_by_its_vocabulary(tmp_path: Path) -> None:
    named = read_recipe(write_model(tmp_path / "Qwen3-Reranker-0.6B"))

    for task in (None, "rank"):
        renamed = read_recipe(write_model(tmp_path / "mine"), task=task)
        assert named.llm_reranker is not None
        assert (named.task, named.llm_reranker) == (renamed.task, renamed.llm_reranker)
    assert read_recipe(tmp_path / "mine", task="embed").task == "embed"


def test_qwen3s_other_models_are_no_rerankers(tmp_path: Path) -> None:
    folders = [
        write_model(tmp_path / "chat", vocab_size=151_936),
        write_model(tmp_path / "embedding", words="bytes-end"),  # an end token follows each text
        write_model(tmp_path / "other words", added=("yes", "no")),
        write_files(write_model(tmp_path / "steps"), POOLED),
        write_model(tmp_path / "Qwen3-Embedding-0.6B-4bit"),
    ]

    assert ["embed"] * len(folders) == [read_recipe(folder).task for folder in folders]
    assert read_recipe(folders[-1], task="rank").task == "embed"


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", ["qwen2", "gemma", "llama", "qwen3"])
def test_a_language_model_is_never_asked_to_rank_by_cosine(kind: str, *, named: bool, tmp_path: Path) -> None:
    architectures = [f"{kind.title()}ForCausalLM"] if named else None
    folder = write_model(tmp_path, added=(), model_type=kind, architectures=architectures)

    with pytest.raises(CheckpointError, match=r"isn't known as a reranker.*LogitScore"):
        read_recipe(folder, task="rank")

    assert read_recipe(write_files(folder, POOLED), task="rank").task == "embed"


def test_a_template_for_pairs_without_its_answers_is_refused(tmp_path: Path) -> None:
    folder = write_files(write_model(tmp_path, added=()), {"chat_template.jinja": PAIRS})

    with pytest.raises(CheckpointError, match="isn't known as a reranker"):
        read_recipe(folder)
