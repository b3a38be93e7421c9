"""A folder's tokenizer files → an open tokenizer, the same one that transformers would build.

tokenizer.json alone suffices nearly always, and spares the two seconds that importing transformers takes. Where
it is missing, or tokenizer_config.json contradicts it, transformers decides: the model was trained with what it
builds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from tokenizers import Tokenizer

from nearfar.core.errors import CheckpointError
from nearfar.models.files.json_files import MOST, read_json, read_optional_json

if TYPE_CHECKING:
    from pathlib import Path

# tokenizer_config.json's options that change ids, and what tokenizer.json calls them.
_OPTIONS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "add_prefix_space": "add_prefix_space",
}
_OLDER_FILES = ("vocab.txt", "vocab.json", "*.model", "*.bpe.codes")


class _Steps(Struct):
    """The parts of tokenizer.json that those options are about."""

    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None


def open_tokenizer(folder: Path) -> Tokenizer:
    """Open the folder's tokenizer. Raises CheckpointError when there is none, or it is damaged."""
    file = folder / "tokenizer.json"
    if not file.is_file() or _contradicted(folder):
        return _by_transformers(folder)
    if file.stat().st_size > MOST:
        raise CheckpointError(f"{file}: is over {MOST:,} bytes, and no tokenizer needs that; download it again")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointError(f"{file}: is damaged: {error}; download it again") from error


def _contradicted(folder: Path) -> bool:
    stated = read_optional_json(folder / "tokenizer_config.json", dict[str, Any])
    asked = {name: stated[option] for option, name in _OPTIONS.items() if stated.get(option) is not None}
    if not asked:
        return False
    steps = read_json(folder / "tokenizer.json", _Steps)
    found = _settings(steps.normalizer) | _settings(steps.pre_tokenizer)
    return any(name in found and found[name] != value for name, value in asked.items())


def _settings(step: object) -> dict[str, Any]:
    """Collect a step's settings, and those of the steps it is a sequence of."""
    if not step:
        return {}
    settings = dict(step) if isinstance(step, dict) else {}
    for inner in [*settings.get("normalizers", []), *settings.get("pretokenizers", [])]:
        settings |= _settings(inner)
    return settings


def _by_transformers(folder: Path) -> Tokenizer:
    if not any(file for name in ("tokenizer.json", *_OLDER_FILES) for file in folder.glob(name)):
        raise CheckpointError(
            f"{folder}: has no tokenizer that can be read: no tokenizer.json, vocab.txt or the like; download them"
        )
    try:
        from transformers import AutoTokenizer

        opened = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer: Tokenizer = opened.backend_tokenizer
    except ImportError as error:
        raise CheckpointError(f"{folder}: reading its tokenizer needs {error.name}; pip install it") from error
    except Exception as error:  # what it stumbles over in a damaged file may be anything
        raise CheckpointError(f"{folder}: has no tokenizer that can be read: {error}") from error
    return tokenizer
