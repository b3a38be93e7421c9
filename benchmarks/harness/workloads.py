"""Benchmark texts that every Python installation has: docstrings and the language reference. Nothing is downloaded.

``texts`` cuts docstring words to length, in three sizes named as in the tables: S, about 11 tokens (queries); P, about
150 (passages); M, log-normal from 5 to 256 with a median of 40. Token counts are those of all-MiniLM-L6-v2, including
two special tokens. ``passages`` returns whole paragraphs for retrieval.
"""

from __future__ import annotations

import ast
import inspect
import random
import sysconfig
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Size = Literal["S", "P", "M"]

MODULES = (
    "argparse",
    "asyncio",
    "collections",
    "concurrent.futures",
    "decimal",
    "difflib",
    "email.message",
    "fractions",
    "functools",
    "http.client",
    "inspect",
    "logging",
    "multiprocessing.pool",
    "optparse",
    "pathlib",
    "shutil",
    "statistics",
    "string",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "typing",
    "unittest",
    "urllib.request",
    "zipfile",
)
_TOKENS_PER_WORD = 1.5  # of this prose, with all-MiniLM-L6-v2's tokenizer
_SPECIAL_TOKENS = 2
_MAX_WORD_CHARS = 24
_TOKENS: dict[Size, Callable[[random.Random], float]] = {
    "S": lambda rng: rng.gauss(11, 2.5),
    "P": lambda rng: rng.gauss(150, 25),
    "M": lambda rng: min(256, max(5, rng.lognormvariate(3.69, 0.8))),  # median 40
}
_PASSAGE_WORDS = range(15, 61)  # in a passage; longer texts are split between paragraphs
_LIBRARY = Path(sysconfig.get_paths()["stdlib"])
_EXCLUDED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"}


@cache
def words() -> list[str]:
    """Return the words of the docstrings of MODULES, their classes, functions and methods, in order."""
    found: list[str] = []
    for module in map(import_module, MODULES):
        owned = [value for value in vars(module).values() if callable(value)]
        members = [member for value in owned if inspect.isclass(value) for member in vars(value).values()]
        documented = (inspect.getdoc(thing) for thing in (module, *owned, *members) if not isinstance(thing, str))
        found += [word for word in " ".join(filter(None, documented)).split() if _is_word(word)]
    return found


def texts(size: Size, count: int, seed: int = 1) -> list[str]:
    """Return ``count`` texts cut at random positions. The same seed and Python version return the same texts."""
    rng = random.Random(f"{size}{seed}")  # noqa: S311 — texts, not secrets
    return [_cut(rng, _TOKENS[size](rng)) for _ in range(count)]


def _cut(rng: random.Random, tokens: float) -> str:
    count = max(2, round((tokens - _SPECIAL_TOKENS) / _TOKENS_PER_WORD))
    start = rng.randrange(len(words()) - count)
    return " ".join(words()[start : start + count])


def _is_word(word: str) -> bool:
    """Return False for the rulers and ASCII drawings in docstrings."""
    return len(word) <= _MAX_WORD_CHARS and any(map(str.isalpha, word))


def passages(count: int, queries: int, seed: int = 1, library: Path = _LIBRARY) -> tuple[list[str], list[str]]:
    """Return ``count`` passages, and the first sentences of ``queries`` other passages as queries.

    The texts are the language reference and the library's docstrings. Files are read in the order of their names,
    never imported. The same Python version returns the same passages. Raises ValueError if it has fewer.
    """
    found = list(dict.fromkeys(passage for text in _documents(library) for passage in _split(text)))
    random.Random(seed).shuffle(found)  # noqa: S311 — texts, not secrets
    if len(found) < count + queries:
        raise ValueError(f"this Python's documentation has {len(found)} passages, not {count + queries}")
    return found[:count], [_first_sentence(passage) for passage in found[count : count + queries]]


def _documents(library: Path) -> Iterator[str]:
    yield from (topics[name] for name in sorted(topics))
    for file in sorted(library.rglob("*.py")):
        if not _EXCLUDED_FOLDERS & {*file.relative_to(library).parts}:
            yield from _docstrings(file)


def _docstrings(file: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the library's files
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # lib2to3 has Python 2 files
            return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def _split(text: str) -> Iterator[str]:
    """Join paragraphs into passages that are long enough; split a paragraph only if it is too long itself."""
    joined: list[str] = []
    for paragraph in text.split("\n\n"):
        words = paragraph.split()
        if joined and len(joined) + len(words) > _PASSAGE_WORDS[-1]:
            yield from _long_enough(joined)
            joined = []
        joined += words
        while len(joined) > _PASSAGE_WORDS[-1]:
            yield from _long_enough(joined[: _PASSAGE_WORDS[-1]])
            joined = joined[_PASSAGE_WORDS[-1] :]
    yield from _long_enough(joined)


def _long_enough(words: list[str]) -> Iterator[str]:
    if len(words) >= _PASSAGE_WORDS[0]:
        yield " ".join(words)


def _first_sentence(passage: str) -> str:
    return passage.partition(". ")[0]
