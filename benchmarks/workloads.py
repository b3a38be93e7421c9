"""Real English text at hand, cut to size: prose of the standard library's docstrings.

Three workloads, named as in the tables: S, short texts of about 11 tokens (queries); P, passages of about 150; M, a
log-normal mix of 5 to 256 with a median of 40. Token counts include the two special tokens; they are what
all-MiniLM-L6-v2's tokenizer makes of the texts, and every table prints what it really was.
"""

from __future__ import annotations

import inspect
import random
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Name = Literal["S", "P", "M"]

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
_TOKENS_A_WORD = 1.5  # of this prose, by all-MiniLM-L6-v2's tokenizer
_SPECIAL_TOKENS = 2
_LONGEST_WORD = 24
_SIZES: dict[Name, Callable[[random.Random], float]] = {
    "S": lambda rng: rng.gauss(11, 2.5),
    "P": lambda rng: rng.gauss(150, 25),
    "M": lambda rng: min(256, max(5, rng.lognormvariate(3.69, 0.8))),  # median 40
}


@cache
def words() -> list[str]:
    """Give the words of the docstrings of MODULES, their classes, functions and methods, in order."""
    found: list[str] = []
    for module in map(import_module, MODULES):
        owned = [value for value in vars(module).values() if callable(value)]
        members = [member for value in owned if inspect.isclass(value) for member in vars(value).values()]
        documented = (inspect.getdoc(thing) for thing in (module, *owned, *members) if not isinstance(thing, str))
        found += [word for word in " ".join(filter(None, documented)).split() if _is_word(word)]
    return found


def texts(name: Name, count: int, seed: int = 1) -> list[str]:
    """Cut ``count`` texts of the workload, at random places; the same ones for the same seed and Python."""
    rng = random.Random(f"{name}{seed}")  # noqa: S311 — texts, not secrets
    return [_cut(rng, _SIZES[name](rng)) for _ in range(count)]


def _cut(rng: random.Random, tokens: float) -> str:
    size = max(2, round((tokens - _SPECIAL_TOKENS) / _TOKENS_A_WORD))
    start = rng.randrange(len(words()) - size)
    return " ".join(words()[start : start + size])


def _is_word(word: str) -> bool:
    """Leave out the rulers and drawings that docstrings hold."""
    return len(word) <= _LONGEST_WORD and any(map(str.isalpha, word))
