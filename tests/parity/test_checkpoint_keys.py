"""Every key that the libraries read from a checkpoint's files is honored, refused by name, or changes nothing here."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import write_files, write_steps, write_transformer
from library_keys import PAGE, decided, decisions, mlx_keys, page, read_keys
from llm_reranker_models import PLAIN_CHAT, write_chat_reranker
from manual import ROOT

from nearfar.core.errors import CheckpointError
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from pathlib import Path

IS_OLDER = int(version("sentence-transformers").partition(".")[0]) < 6
READS_FEWER = IS_OLDER or int(version("transformers").split(".")[1]) < 23
# The file of a written folder, and a value that is refused, by the file's name in the manual and the key.
REFUSED: dict[tuple[str, str], tuple[str, Any]] = {
    ("sentence_bert_config.json", "module_output_name"): ("sentence_bert_config.json", "pooled"),
    ("sentence_bert_config.json", "tokenizer_name_or_path"): ("sentence_bert_config.json", "owner/other"),
    ("modality_config", "method"): ("sentence_bert_config.json", "get_text_features"),
    ("modality_config", "method_output_name"): ("sentence_bert_config.json", "pooler_output"),
    ("Dense: config.json", "module_input_name"): ("2_Dense/config.json", "token_embeddings"),
    ("Dense: config.json", "module_output_name"): ("2_Dense/config.json", "token_embeddings"),
    ("Normalize: config.json", "module_input_name"): ("3_Normalize/config.json", "token_embeddings"),
    ("Normalize: config.json", "module_output_name"): ("3_Normalize/config.json", "token_embeddings"),
    ("LogitScore: config.json", "module_input_name"): ("1_LogitScore/config.json", "logits"),
    ("MultiVectorMask: config.json", "keep_only_token_ids"): ("2_MultiVectorMask/config.json", [1]),
}


def sources() -> str:
    """Return the source that reads and runs checkpoints."""
    folders = ("models", "engines")
    return "".join(
        file.read_text(encoding="utf-8")
        for folder in folders
        for file in sorted((ROOT / "src" / "nearfar" / folder).rglob("*.py"))
    )


def test_every_key_that_the_libraries_read_is_decided() -> None:
    known = decisions()
    missing = {name: keys - decided(known[name]) for name, keys in read_keys().items()}

    assert {} == {name: keys for name, keys in missing.items() if keys}


@pytest.mark.skipif(READS_FEWER, reason="older versions read fewer keys")
def test_no_key_is_decided_that_the_libraries_do_not_read() -> None:
    known = decisions()

    assert {} == {name: more for name, keys in read_keys().items() if (more := decided(known[name]) - keys)}


def test_mlx_computes_every_option_of_config_json_that_transformers_reads() -> None:
    pytest.importorskip("mlx.core")
    known = decided(decisions()["config.json with MLX"])
    missing = mlx_keys()

    assert len(missing) >= 10
    assert known == {key for keys in missing.values() for key in keys}


def test_honored_keys_are_read_by_the_source() -> None:
    text = sources()
    honored = {key for decision in decisions().values() for key in decision.get("honored", ())}

    assert set() == {key for key in honored if not re.search(rf"\b{key}\b", text)}


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, decision in decisions().items() for key in decision.get("refused", ())]
)
def test_refused_keys_are_named_by_the_refusal(name: str, key: str, tmp_path: Path) -> None:
    file, value = REFUSED[name, key]
    folder = tmp_path / "model"
    if file.startswith("1_LogitScore"):
        folder = write_chat_reranker(folder, PLAIN_CHAT)
    elif file.startswith("2_MultiVectorMask"):
        if IS_OLDER:
            pytest.skip("this version has no such models")
        from small_models import write_colbert

        write_colbert(folder, "bert")
    else:
        write_transformer(folder, "bert")
        write_steps(folder, "mean")
    place = folder / file
    config = json.loads(place.read_text()) if place.is_file() else {}
    changed = {"modality_config": {"text": {key: value}}} if name == "modality_config" else {key: value}
    write_files(folder, {file: config | changed})

    with pytest.raises(CheckpointError) as refusal:
        read_recipe(folder)

    assert place.parent.name in str(refusal.value)
    assert key in str(refusal.value) or str(value) in str(refusal.value)


def test_the_manual_s_page_is_made_of_the_decisions() -> None:
    assert page() == PAGE.read_text(encoding="utf-8")
