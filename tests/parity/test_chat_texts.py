"""Embedding models with a chat template get the ids that sentence-transformers makes, truncation included."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import HIDDEN, write_files, write_transformer
from sentence_transformers import SentenceTransformer
from texts import varied_texts

from nearfar.core.errors import CheckpointError
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from pathlib import Path

FLAT = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
TRIMMED = "{{ bos_token }}{{ messages[-1].content | trim }}{% if add_generation_prompt %} answer:{% endif %}"
STRUCTURED = "{% for m in messages %}{{ m.role }}: {{ m.content[0].text }}</s>{% endfor %}tail"


def write(folder: Path, template: str, **options: Any) -> Path:
    """Write a decoder that pools the last token; its texts go through the template."""
    write_transformer(folder, "llama")
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    message = text | {"format": "flat"} | options
    chat = {"chat_template": {"add_generation_prompt": True}} if template == TRIMMED else {}
    kind = "sentence_transformers.models."
    files = {
        "chat_template.jinja": template,
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": text, "message": message},
            "module_output_name": "token_embeddings",
            "processing_kwargs": chat,
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{kind}Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}Pooling"},
        ],
        "1_Pooling/config.json": {"embedding_dimension": HIDDEN, "pooling_mode": "lasttoken"},
    }
    return write_files(folder, files)


@pytest.mark.parametrize(("template", "options"), [(FLAT, {}), (TRIMMED, {}), (STRUCTURED, {"format": "structured"})])
def test_texts_go_through_the_template(template: str, options: dict[str, str], tmp_path: Path) -> None:
    folder = write(tmp_path / "model", template, **options)
    reference: Any = SentenceTransformer(str(folder), device="cpu")
    encoder = TextEncoder(folder, read_recipe(folder))
    texts = [*varied_texts(6), " spaces ", "the fox " * 60]

    for prompt in ("", "find: "):
        expected = [reference.preprocess([text], prompt=prompt or None)["input_ids"][0].tolist() for text in texts]

        assert expected == [row.ids for row in encoder.encode(texts, prompt)]


def test_a_model_without_its_template_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", FLAT)
    (folder / "chat_template.jinja").unlink()

    with pytest.raises(CheckpointError, match="but it has no chat template; add its chat_template"):
        read_recipe(folder)


def test_without_a_message_in_the_options_a_template_is_ignored(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", FLAT)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40}))

    assert read_recipe(folder).chat is None
