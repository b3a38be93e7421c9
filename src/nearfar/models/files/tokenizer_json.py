"""Opens a checkpoint's tokenizer, the same one that transformers would build.

tokenizer.json is nearly always enough, and saves the two seconds of importing transformers. If it is missing, or
tokenizer_config.json contradicts it, transformers builds the tokenizer, as it did when the model was trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct
from tokenizers import Tokenizer

from nearfar.core.errors import CheckpointError
from nearfar.models.files.json_files import MAX_BYTES, read_json, read_optional_json

# Options of tokenizer_config.json that change ids, and their names in tokenizer.json.
_OPTIONS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "add_prefix_space": "add_prefix_space",
}
_OLDER_FILES = ("vocab.txt", "vocab.json", "*.model", "*.bpe.codes")


class _Steps(Struct):
    """The parts of tokenizer.json that have those options."""

    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None


def open_tokenizer(folder: Path) -> Tokenizer:
    """Open the folder's tokenizer. Raises CheckpointError if there is none, or it is damaged."""
    file = folder / "tokenizer.json"
    if not file.is_file() or _is_contradicted(folder):
        return _open_with_transformers(folder)
    if file.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{file}: has over {MAX_BYTES:,} bytes, too many for a tokenizer; download it again")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointError(f"{file}: is damaged: {error}; download it again") from error


def known_ids(tokenizer: Tokenizer, words: Iterable[str]) -> frozenset[int]:
    """Return the ids of the words that are single tokens."""
    return frozenset(found for word in words if (found := tokenizer.token_to_id(word)) is not None)


def _is_contradicted(folder: Path) -> bool:
    """Return whether tokenizer_config.json and tokenizer.json disagree on one of the options."""
    config = read_optional_json(folder / "tokenizer_config.json", dict[str, Any])
    expected = {name: config[option] for option, name in _OPTIONS.items() if config.get(option) is not None}
    if not expected:
        return False
    steps = read_json(folder / "tokenizer.json", _Steps)
    actual = _settings(steps.normalizer) | _settings(steps.pre_tokenizer)
    return any(name in actual and actual[name] != value for name, value in expected.items())


def _settings(step: object) -> dict[str, Any]:
    """Collect the settings of a step, and of the steps that it is a sequence of."""
    if not step:
        return {}
    settings = dict(step) if isinstance(step, dict) else {}
    for inner in [*settings.get("normalizers", []), *settings.get("pretokenizers", [])]:
        settings |= _settings(inner)
    return settings


def _open_with_transformers(folder: Path) -> Tokenizer:
    if not any(file for name in ("tokenizer.json", *_OLDER_FILES) for file in folder.glob(name)):
        raise CheckpointError(f"{folder}: has no tokenizer (tokenizer.json, vocab.txt or similar); download it")
    try:
        from transformers import AutoTokenizer

        opened = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer: Tokenizer = opened.backend_tokenizer
    except ImportError as error:
        raise CheckpointError(f"{folder}: reading its tokenizer needs {error.name}; pip install it") from error
    except Exception as error:  # a damaged file may raise anything there
        raise CheckpointError(f"{folder}: its tokenizer can't be read: {error}") from error
    return tokenizer
