"""How is the source built, and how is it worded? ``python benchmarks/source.py [CHECKOUT ...]`` prints a column each.

Counts files, lines, folders, imports between folders, sizes of functions and classes, how docstrings begin, and words
that this project doesn't use in docstrings, comments, names and the manual. Reads files only; any checkout will do.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import statistics
import tokenize
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Words that a reader of vLLM or Prometheus would not search for. What is quoted or in backticks doesn't count.
FORBIDDEN = (
    "give|gives|tell|tells|told|say|says|said|let|lets|hold|holds|lay|lays|laid|put|puts|meant|"
    "who|whom|whose|whoever|nobody|anybody|somebody|everybody|stranger|strangers"
)
FORBIDDEN_NAMES = frozenset({"give", "tell", "told", "say", "said", "lay", "laid", "meant", "who", "whose", "nobody"})
QUOTED = re.compile(
    r"""```.*?``` | ``.*?`` | `[^`]*` | "[^"]*" | “[^”]*” | '[^'\n]{2,}?'(?!\w) | ^[ ]{4,}.*$""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
WORD = re.compile(rf"(?<![\w.])({FORBIDDEN})(?![\w(])")
STANDARD_VERBS = frozenset(
    {
        "Return",
        "Compute",
        "Raise",
        "Load",
        "Read",
        "Build",
        "Check",
        "Yield",
        "Write",
        "Parse",
        "Convert",
        "Create",
        "Run",
    }
)


def forbidden_in(text: str) -> list[str]:
    """Return the forbidden words of a docstring, a comment or a page, outside quotations; ``PUT`` is a method."""
    return [word.lower() for word in WORD.findall(QUOTED.sub(" ", text).replace("PUT", "").lower())]


def prose_of(source: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and comments of a file, with their lines."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if text := ast.get_docstring(node):
            yield getattr(node, "lineno", 1), text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def names_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield what a file defines: functions, classes, arguments and variables, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def _python_files(folder: Path) -> dict[Path, str]:
    return {
        file: file.read_text(encoding="utf-8")
        for file in sorted(folder.rglob("*.py"))
        if not {".environments", ".peers", "__pycache__"} & {*file.parts}
    }


def _rooms(src: Path, sources: dict[Path, str]) -> dict[str, int]:
    """Count the modules directly in each folder of the package."""
    counts = Counter(file.parent.relative_to(src).as_posix() for file in sources if file.name != "__init__.py")
    return {("nearfar" if room == "." else room): count for room, count in sorted(counts.items())}


def _arrows(src: Path, trees: dict[Path, ast.Module]) -> set[tuple[str, str]]:
    """Return which folder imports from which other one."""
    places = {file.relative_to(src).with_suffix("").as_posix().removesuffix("/__init__") for file in trees}
    arrows = set()
    for file, tree in trees.items():
        room = file.parent.relative_to(src).as_posix()
        for node in ast.walk(tree):
            names = [f"{node.module}.{a.name}" for a in node.names] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.partition(".")[0] != "nearfar":
                    continue
                place = name.partition(".")[2].replace(".", "/")
                while place and place not in places:
                    place = place.rpartition("/")[0]
                other = place if (src / place).is_dir() else place.rpartition("/")[0] or "."
                if other != room:
                    arrows.add((room, other))
    return arrows


def _spread(values: list[int]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):.0f} / {ordered[len(ordered) * 9 // 10]} / {ordered[-1]}"


def measure(checkout: Path) -> dict[str, str]:
    """Return the figures of one checkout by their names."""
    src = checkout / "src" / "nearfar"
    sources = _python_files(src)
    trees = {file: ast.parse(source) for file, source in sources.items()}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    functions = [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    docstrings = [text for node in functions if (text := ast.get_docstring(node))]
    first_words = Counter(text.split()[0].rstrip(".,:") for text in docstrings)
    standard = sum(first_words[verb] for verb in STANDARD_VERBS)
    rooms = _rooms(src, sources)
    names = Counter(file.name for file in sources if not {"dialects", "engines"} & {*file.relative_to(src).parts})
    figures = {
        "files in src": str(len(sources)),
        "lines in src": f"{sum(source.count(chr(10)) for source in sources.values()):,}",
        "lines per file, median / p90 / max": _spread([source.count("\n") for source in sources.values()]),
        "folders": str(len(rooms)),
        "modules per folder, median / p90 / max": _spread([*rooms.values()]),
        "folders with more than nine modules": ", ".join(f"{r} {n}" for r, n in rooms.items() if n > 9) or "none",  # noqa: PLR2004
        "imports between folders": str(len(_arrows(src, trees))),
        "file names that occur more than once": str(sum(n > 1 and f != "__init__.py" for f, n in names.items())),
        "lines per function, median / p90 / max": _spread([(n.end_lineno or 0) - n.lineno + 1 for n in functions]),
        "lines per class, median / p90 / max": _spread([(n.end_lineno or 0) - n.lineno + 1 for n in classes]),
        "docstrings of functions": str(len(docstrings)),
        "of these begin Return, Compute, Raise, Load, Read, Build, …": f"{standard / len(docstrings):.0%}",
        "of these begin Give": str(first_words["Give"]),
    }
    words: Counter[str] = Counter()
    defined: Counter[str] = Counter()
    for folder in ("src", "tests", "benchmarks", "compat_fixtures"):
        for source in _python_files(checkout / folder).values():
            tree = ast.parse(source)
            words.update(word for _, text in prose_of(source, tree) for word in forbidden_in(text))
            defined.update(word for _, name in names_of(tree) for word in FORBIDDEN_NAMES & {*name.lower().split("_")})
    pages = [checkout / "README.md", *sorted((src / "docs").glob("*.md"))]
    words.update(word for page in pages for word in forbidden_in(page.read_text(encoding="utf-8")))
    top = ", ".join(f"{word} {count}" for word, count in words.most_common(8))
    figures["forbidden words in docstrings, comments and manual"] = f"{sum(words.values())} ({top})" if words else "0"
    figures["forbidden words in names"] = str(sum(defined.values()))
    figures["lines of README.md"] = str(pages[0].read_text(encoding="utf-8").count("\n"))
    figures["modules by folder"] = ", ".join(f"{room} {count}" for room, count in rooms.items())
    return figures


def main() -> None:
    """Print a table with a column for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", metavar="CHECKOUT", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    checkouts = parser.parse_args().checkouts
    for checkout in checkouts:
        if not (checkout / "src" / "nearfar").is_dir():
            parser.error(f"{checkout} is no checkout: it has no src/nearfar")
    columns = [measure(checkout) for checkout in checkouts]
    print("| figure |" + "".join(f" {checkout.resolve().name} |" for checkout in checkouts))
    print("|---|" + "---|" * len(checkouts))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")


if __name__ == "__main__":
    main()
