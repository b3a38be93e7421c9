"""README and the manual's pages as text, code blocks, tables and sentences."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from msgspec import Struct

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
FOLDER = Path(str(files("nearfar"))) / "docs"
PAGES = {file.stem: file for file in sorted(FOLDER.glob("*.md"))}
EVERYTHING = {"README": ROOT / "README.md", **PAGES}

_FENCE = re.compile(r"^```(\S*) *(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) ")


class Block(Struct, frozen=True, kw_only=True):
    """One code block: ``options`` follow the language, ``output`` is the ``text`` block right after it."""

    page: str
    line: int
    language: str
    options: str
    code: str
    output: str | None = None

    @property
    def place(self) -> str:
        """Return ``PAGE:LINE``."""
        return f"{self.page}:{self.line}"


def read(page: str) -> str:
    """Return the text of README or of a page."""
    return EVERYTHING[page].read_text(encoding="utf-8")


def blocks(language: str) -> list[Block]:
    """Return all code blocks in a language, README's first."""
    return [block for page in EVERYTHING for block in _blocks(page) if block.language == language]


def _blocks(page: str) -> list[Block]:
    text = read(page)
    found = []
    for match in _FENCE.finditer(text):
        after = re.match(r"\s*```text\n((?:.*\n)*?)```", text[match.end() :])
        block = Block(
            page=page,
            line=text.count("\n", 0, match.start()) + 1,
            language=match[1],
            options=match[2],
            code=match[3],
            output=after[1] if after else None,
        )
        found.append(block)
    return found


def tables(page: str, header: str) -> list[list[str]]:
    """Return the rows, as cells, of every table with this header line. Raises LookupError if there is none."""
    lines = read(page).splitlines()
    starts = [at for at, line in enumerate(lines) if line == header]
    if not starts:
        raise LookupError(f"{page} has no table {header}")
    rows: list[list[str]] = []
    for start in starts:
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            rows.append([cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")])
    return rows


def codes(text: str) -> list[str]:
    """Return what stands between backticks."""
    return [code.strip("`") for code in _CODE.findall(text)]


def prose(page: str) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", read(page))


def sentences(page: str) -> list[str]:
    """Return the sentences outside code, tables and headings; inline code counts as one word."""
    parts = [""]
    for line in prose(page).splitlines():
        if not line.strip() or line.startswith(("#", "|")):
            parts.append("")
        elif _ITEM.match(line):
            parts.append(_ITEM.sub("", line))
        else:
            parts[-1] += f" {line.strip()}"
    plain = [_CODE.sub("code", _LINK.sub(r"\1", part)) for part in parts]
    return [sentence for part in plain for sentence in re.split(r"(?<=[.!?])\**\s+", part) if sentence.strip()]


def words(sentence: str) -> list[str]:
    """Return the words of a sentence; signs alone don't count."""
    return [word for word in sentence.split() if re.search(r"\w", word)]
