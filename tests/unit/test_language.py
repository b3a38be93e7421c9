"""Names, docstrings, comments and pages are in plain English. Every rule lists all offenders."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from source import FORBIDDEN_NAMES, forbidden_in, names_of, prose_of

ROOT = Path(__file__).parents[2]
DOCS = "src/nearfar/docs"
NOT_FIRST = {"Give", "Tell", "Let", "Say", "Put", "Hold", "Lay", "Look", "Go", "See", "Note"}


def _sources(*folders: str) -> dict[str, tuple[str, ast.Module]]:
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    ours = [file for file in files if not {".environments", ".peers"} & {*file.parts}]
    texts = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in ours}
    return {name: (text, ast.parse(text)) for name, text in texts.items()}


def test_prose_and_names_have_no_forbidden_words() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / DOCS).glob("*.md"))]
    found = [(page.relative_to(ROOT).as_posix(), 0, forbidden_in(page.read_text(encoding="utf-8"))) for page in pages]
    for name, (text, tree) in _sources("src", "tests", "benchmarks", "compat_fixtures").items():
        found += [(name, line, forbidden_in(prose)) for line, prose in prose_of(text, tree)]
        found += [(name, line, [*FORBIDDEN_NAMES & {*word.lower().split("_")}]) for line, word in names_of(tree)]

    offenders = [f"{name}:{line} {', '.join(words)}" for name, line, words in found if words]

    assert [] == offenders


def test_docstrings_of_functions_begin_with_a_capitalized_word_that_names_what_they_do() -> None:
    offenders = [
        f"{name}:{node.lineno} {docstring.splitlines()[0]}"
        for name, (_, tree) in _sources("src").items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (docstring := ast.get_docstring(node))
        if not re.match(r"[A-Z][a-z]", docstring) or docstring.split()[0].rstrip(".,:;") in NOT_FIRST
    ]

    assert [] == offenders
