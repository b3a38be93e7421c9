"""Thousands of real passages that every Python brings along: its language reference and its library's docstrings.

Files are read, never imported, in the order of their names: the same Python gives the same passages.
"""

from __future__ import annotations

import ast
import random
import sysconfig
import warnings
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORDS = range(15, 61)  # of a passage; a longer text is parted between its paragraphs
_NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"}


def passages(count: int, queries: int, seed: int = 1) -> tuple[list[str], list[str]]:
    """Give ``count`` passages, and the first sentences of ``queries`` others.

    Raises ValueError where this Python's documentation has fewer.
    """
    found = list(dict.fromkeys(passage for text in _documents() for passage in _parts(text)))
    random.Random(seed).shuffle(found)  # noqa: S311 — a choice of texts, not of secrets
    if len(found) < count + queries:
        raise ValueError(f"this Python's documentation has {len(found)} passages, not {count + queries}")
    return found[:count], [_first_sentence(passage) for passage in found[count : count + queries]]


def _documents() -> Iterator[str]:
    yield from (topics[name] for name in sorted(topics))
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(library.rglob("*.py")):
        if not _NOT_THE_LIBRARY & {*file.relative_to(library).parts}:
            yield from _docstrings(file)


def _docstrings(file: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in others' files
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # lib2to3 keeps files of Python 2
            return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def _parts(text: str) -> Iterator[str]:
    """Gather paragraphs into passages that are long enough, and cut a paragraph only where it is too long itself."""
    gathered: list[str] = []
    for paragraph in text.split("\n\n"):
        words = paragraph.split()
        if gathered and len(gathered) + len(words) > _WORDS[-1]:
            yield from _long_enough(gathered)
            gathered = []
        gathered += words
        while len(gathered) > _WORDS[-1]:
            yield from _long_enough(gathered[: _WORDS[-1]])
            gathered = gathered[_WORDS[-1] :]
    yield from _long_enough(gathered)


def _long_enough(words: list[str]) -> Iterator[str]:
    if len(words) >= _WORDS[0]:
        yield " ".join(words)


def _first_sentence(passage: str) -> str:
    return passage.partition(". ")[0]
