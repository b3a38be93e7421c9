"""Refuses a tokenizer.json that would need too much time or memory, or would fail, before it is opened.

The library tokenizers has no limits: a few kilobytes of JSON may multiply every text, or stop the process.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from tokenizers import Tokenizer

from nearfar.core.errors import CheckpointError
from nearfar.models.files.json_files import read_json

# Known models have up to 902 thousand words (XLM-V), of up to 256 characters, and 6,414 added tokens (Gemma 3).
_MAX_WORDS, _MAX_WORD, MAX_ADDED = 2**21, 1024, 2**15
_MAX_TEXT = 4096  # characters of one pattern; those of known tokenizers have up to 1,000
_MAX_TEXTS = 2**16  # of all of them, outside the vocabulary
_MAX_STEPS = 256  # of a normalizer; those of known tokenizers have up to 20
_MAX_SPECIAL_IDS = 1024  # that a template adds
_MAX_WORD_INPUT = 10_000  # WordPiece's time grows with its square
_MAX_GROWTH = 64  # NFKC makes up to 18 characters of one
_MAX_REGEX_S = 0.2  # for one text of those below, which known patterns split in 1 ms
_REGEX_LENGTHS = (16, 32, 64, 128, 256, 512, 1024)  # ascending: the first ones end soon whatever the pattern
_INNER = ("normalizers", "pretokenizers", "processors", "decoders")
_TRIAL = "Two words, and a 3rd.\n\tÜnïcode 机器 мир 🙂 \u202e"
_EMPTY = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}

Step = dict[str, Any]


class _Model(Struct):
    vocab: dict[str, Any] | list[Any] = {}
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    max_input_chars_per_word: int | None = None


class _TokenizerFile(Struct):
    """What is checked of tokenizer.json. The merges, half of a large file, are skipped."""

    model: _Model = msgspec.field(default_factory=_Model)
    added_tokens: list[dict[str, Any]] | None = None
    normalizer: Step | None = None
    pre_tokenizer: Step | None = None
    post_processor: Step | None = None
    decoder: Step | None = None


class _Refused(Exception):
    """Raised with the reason why a tokenizer.json is refused."""


def refuse_absurd_tokenizer(file: Path) -> None:
    """Raise CheckpointError, naming the file, if its tokenizer would need far more than a known one."""
    found = read_json(file, _TokenizerFile)
    try:
        _check_sizes(found)
        steps = [_steps(part) for part in (found.normalizer, found.pre_tokenizer, found.post_processor, found.decoder)]
        for part in steps:
            _check_most(len(part), _MAX_STEPS, "steps in one part")
        _check_templates(steps[2])
        _check_growth(steps[0] + [{"type": "ByteLevel"} for step in steps[1] if step.get("type") == "ByteLevel"])
        _check_growth([step for step in steps[3] if step.get("type") == "Replace"])
        _check_patterns([*steps[0], *steps[1], *steps[3]])
    except _Refused as error:
        raise CheckpointError(f"{file}: {error}; use the tokenizer of the model's author") from error
    except (AttributeError, TypeError) as error:
        raise CheckpointError(f"{file}: has unexpected content: {error}; download it again") from error


def _check_sizes(found: _TokenizerFile) -> None:
    vocab, model = found.model.vocab, found.model
    _check_most(len(vocab), _MAX_WORDS, "words in the vocabulary")
    words = vocab if isinstance(vocab, dict) else (str(word[0]) for word in vocab if isinstance(word, list) and word)
    _check_most(max(map(len, words), default=0), _MAX_WORD, "characters in a word of the vocabulary")
    _check_most(len(found.added_tokens or []), MAX_ADDED, "added tokens")
    contents = (str(token.get("content")) for token in found.added_tokens or [])
    marks = (model.unk_token or "", model.continuing_subword_prefix or "", model.end_of_word_suffix or "")
    _check_most(max(map(len, (*contents, *marks))), _MAX_WORD, "characters in an added token or a prefix")
    _check_most(model.max_input_chars_per_word or 0, _MAX_WORD_INPUT, "characters in a word of a text")
    texts = [*_texts((found.normalizer, found.pre_tokenizer, found.post_processor, found.decoder))]
    _check_most(max(map(len, texts), default=0), _MAX_TEXT, "characters in a pattern or a replacement")
    _check_most(sum(map(len, texts)), _MAX_TEXTS, "characters in all patterns and names")


def _check_most(count: int, most: int, what: str) -> None:
    if count > most:
        raise _Refused(f"has {count:,} {what}, and at most {most:,} are allowed")


def _steps(part: Step | None) -> list[Step]:
    """Return the steps of a part, those of nested sequences included, in their order."""
    pending: list[Any] = [part]
    found = []
    while pending:
        step = pending.pop()
        if isinstance(step, dict):
            inner = next((step[name] for name in _INNER if isinstance(step.get(name), list)), None)
            if inner is None:
                found.append(step)
            else:
                pending.extend(reversed(inner))
    return found


def _texts(value: Any) -> Iterator[str]:
    """Yield every string in the value, besides the character maps, which are checked on their own."""
    pending = [value]
    while pending:
        found = pending.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, dict):
            pending.extend(each for name, each in found.items() if name != "precompiled_charsmap")
            pending.extend(found.keys())
        elif isinstance(found, list | tuple):
            pending.extend(found)


def _check_templates(steps: Iterable[Step]) -> None:
    """Raise if templates add very many special tokens, or repeat the text."""
    added = 0
    for step in steps:
        special = step.get("special_tokens") or {}
        for template in (step.get("single"), step.get("pair")):
            pieces = [piece for piece in template or [] if isinstance(piece, dict)]
            named = [str((piece.get("SpecialToken") or {}).get("id")) for piece in pieces]
            ids = {name: len(token.get("ids") or []) for name, token in special.items()} if any(named) else {}
            added += sum(ids.get(name, 0) for name in named)
            texts = [str(piece["Sequence"].get("id")) for piece in pieces if "Sequence" in piece]
            if len(texts) > len({*texts}) or len(texts) > 2:  # noqa: PLR2004 — the texts A and B
                raise _Refused("its post_processor repeats the text")
    _check_most(added, _MAX_SPECIAL_IDS, "special tokens in a template")


def _check_growth(steps: list[Step]) -> None:
    """Raise if the steps make a text many times longer, applied one by one, so that the check itself stays small."""
    texts = {*_texts([{**step, "type": ""} for step in steps])}
    characters = {*map(chr, range(32, 127)), *"éא机🙂", *"".join(texts)}
    probes = [character * 8 for character in sorted(characters)] + sorted(texts)
    grown = probes
    for step in steps:
        if step.get("type") == "Precompiled":
            _check_charsmap(step)
        normalizer: Any = _build(normalizer=step).normalizer
        grown = [_run(normalizer.normalize_str, text) for text in grown]
        for probe, text in zip(probes, grown, strict=True):
            if len(text) > _MAX_GROWTH * (len(probe) + 1):
                raise _Refused(f"its {step.get('type')} step makes texts over {_MAX_GROWTH} times as long")


def _check_charsmap(step: Step) -> None:
    """Raise if one character is replaced by very many. The map has a trie, preceded by its size, and then the texts."""
    try:
        content = base64.b64decode(str(step.get("precompiled_charsmap")), validate=True)
    except ValueError as error:
        raise _Refused("its precompiled_charsmap isn't base64") from error
    size = int.from_bytes(content[:4], "little")
    if size > len(content):  # so much memory would be allocated
        raise _Refused(f"its precompiled_charsmap has {len(content):,} bytes, but states {size:,}")
    replacements = content[4 + size :].split(b"\0")
    _check_most(max(map(len, replacements)), _MAX_GROWTH * 4, "bytes in a text of the precompiled_charsmap")


def _check_patterns(steps: list[Step]) -> None:
    """Raise if a regular expression needs very long for a short text of its own characters."""
    patterns = [step["pattern"].get("Regex") for step in steps if isinstance(step.get("pattern"), dict)]
    for step in steps:
        if step.get("type") == "FixedLength" and not step.get("length"):
            raise _Refused("its FixedLength step has no length")
    for pattern in dict.fromkeys(pattern for pattern in patterns if isinstance(pattern, str)):
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        tokenizer = _build(pre_tokenizer=split)
        units = sorted({*pattern, *re.findall(r"\w{2,}", pattern), *" a1é\n\t,א机", "ab", "a "})
        texts = (
            unit * (length // len(unit)) + end
            for length in _REGEX_LENGTHS
            for unit in units
            for end in ("", f"\0{pattern}")
        )
        for text in texts:
            began = time.thread_time()
            _run(tokenizer.encode, text)
            if time.thread_time() - began > _MAX_REGEX_S:
                raise _Refused(f"its pattern {pattern[:80]!r} needs over {_MAX_REGEX_S} s for {len(text):,} characters")


def _build(**parts: Step) -> Tokenizer:
    """Build a tokenizer of these steps and no words."""
    tokenizer: Tokenizer = _run(Tokenizer.from_str, json.dumps(_EMPTY | {"added_tokens": []} | parts))
    return tokenizer


def _run(function: Any, argument: Any) -> Any:
    """Call the tokenizers library; its panics in Rust become refusals."""
    try:
        return function(argument)
    except BaseException as error:
        if is_failure(error):
            raise _Refused(f"its tokenizer fails: {error}") from error
        raise


def try_tokenizer(tokenizer: Tokenizer, file: Path) -> None:
    """Raise CheckpointError, naming the file, if the tokenizer fails for short texts, as every request would."""
    try:
        for text in ("", "a"):
            tokenizer.decode(tokenizer.encode(text).ids)
        tokenizer.encode("a", "a")
        with contextlib.suppress(Exception):  # some without an unknown token refuse rare letters; a panic isn't caught
            tokenizer.decode(tokenizer.encode(_TRIAL).ids)
    except BaseException as error:
        if is_failure(error):
            raise CheckpointError(f"{file}: its tokenizer fails: {error}; use another model") from error
        raise


def is_failure(error: BaseException) -> bool:
    """Return whether the tokenizers library failed: its panics in Rust aren't an Exception."""
    if isinstance(error, MemoryError):
        return False
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
