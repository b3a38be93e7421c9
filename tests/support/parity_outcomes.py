"""What each parity case is expected to do on each engine, and the manual's page made of that."""

from __future__ import annotations

import json
import re
from collections import Counter
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from manual import FOLDER, ROOT
from parity_cases import CASES, GROUPS
from parity_cases.known import DECIDED, KNOWN, MENTIONED, SERVED
from parity_kinds import kinds
from parity_run import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

ENGINES = ("torch", "openvino", "mlx")
FILE = Path(__file__).parent / "parity_cases" / "outcomes.json"
PAGE = FOLDER / "parity.md"
# Whether these are the versions that the constraints pin: with them each case can be written, and is recorded.
PINNED = all(
    f"{package}=={version(package)}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().split()
    for package in ("transformers", "sentence-transformers", "tokenizers")
)
# A refusal names a file or a key of one, and a way out.
_NAMES = re.compile(r"\.(json|safetensors|txt|model|jinja|bin|gguf)\b|\b(model_type|model|folder|engine)\b|--\w+|=")
_WAY_OUT = re.compile(
    r"\b(take|use|serve|name|set|convert|merge|download|install|mend|remove|delete|add|save|write|export|run|choose|put)\b"
)

# What a refusal has of one family, one measurement or one machine → what the manual has in its place.
_GENERAL = (
    (re.compile(r"has no \S+ (model|reranker), only [^;]+"), r"has no such \1"),
    (re.compile(r"numbers for \w+ differ from torch's: [^;]+"), "numbers differ from torch's"),
    (re.compile(r"can't convert \w+"), "can't convert it"),
    (re.compile(r"for '.*?' (and '.*?' )?they differ by [\d.e-]+ \(limit [\d.]+\)"), "for … they differ"),
    (re.compile(r"^texts in its batch .*? \(limit"), "texts in its batch change the numbers of … (limit"),
)


def expected() -> dict[str, list[str]]:
    """Return each case's expected result on ENGINES: ``equal``, ``decided``, ``known`` or ``refused: …``."""
    found: dict[str, list[str]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def decided(name: str) -> str:
    """Return why a case's numbers differ on purpose, or an empty text."""
    return next((why for pattern, why in DECIDED if fnmatch(name, pattern)), "")


def known(name: str, engine: str) -> str:
    """Return why a case is known to be wrong on an engine, or an empty text."""
    return next((why for pattern, on, why in KNOWN if fnmatch(name, pattern) and engine in on.split()), "")


def fault(name: str, engine: str, outcome: Outcome) -> str:
    """Return what is wrong with an outcome: nothing, if it is the expected one or better."""
    if outcome.result == "equal" or (outcome.result == "wrong" and decided(name)):
        return ""
    if outcome.result == "refused":
        served = engine == "torch" and any(fnmatch(name, pattern) for pattern in SERVED)
        served = served or expected().get(name, ["refused"] * 3)[ENGINES.index(engine)] == "equal"
        # OpenVINO converts transformers' own code, and not that of every version.
        is_unconverted = not PINNED and engine == "openvino" and outcome.detail.endswith("; use --engine torch")
        if served and not is_unconverted and (PINNED or outcome.has_reference):
            return f"has to be served, and is refused: {outcome.detail}"
        is_named = MENTIONED.get(name, "") in outcome.detail.lower()
        return "" if is_named and _is_clear(outcome.detail) else f"unclear refusal: {outcome.detail}"
    return f"{outcome.result}: {outcome.detail}"


def _is_clear(refusal: str) -> bool:
    return bool(_NAMES.search(refusal) and _WAY_OUT.search(refusal)) and refusal[-1] not in ":;"


def record_reports(reports: Iterable[object]) -> None:
    """Write FILE and PAGE from what the tests of the cases reported. What didn't run keeps its outcome."""
    found: dict[str, dict[str, str]] = {}
    for report in reports:
        for key, value in getattr(report, "user_properties", ()):
            if key == "parity" and getattr(report, "when", "") == "call":
                name, engine, result, detail = value
                found.setdefault(name, {})[engine] = _label(name, engine, Outcome(result, detail))
    if not (found and PINNED):
        return
    before = expected()
    lines = []
    for name in CASES:
        cells = dict(zip(ENGINES, before.get(name, ["known"] * 3), strict=True)) | found.get(name, {})
        lines.append(f"{json.dumps(name)}: {json.dumps([cells[engine] for engine in ENGINES], ensure_ascii=False)}")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")


def _label(name: str, engine: str, outcome: Outcome) -> str:
    """Return how an outcome is written: one that is a fault doesn't become the expected one."""
    if outcome.result == "refused" and not fault(name, engine, outcome):
        return f"refused: {outcome.detail}"
    if fault(name, engine, outcome):
        return "known" if known(name, engine) else expected().get(name, ["known"] * 3)[ENGINES.index(engine)]
    return "equal" if outcome.result == "equal" else "decided"


_INTRO = """# Compared with the libraries

`make parity` writes this page. It builds {cases} small checkpoints of every kind, with random weights. It serves each
on every engine and compares the numbers with those of sentence-transformers or transformers.

- **Equal** means float32, each text alone and all in one batch. Token counts are the same. Cosines are at least
  0.99999. Scores differ by at most 0.0001. The other texts of a batch change a text's numbers by at most 0.0001.
- **Refused** means that the server doesn't start. The error names the file, the reason and the way out.
- **Decided** means that nearfar differs on purpose, for the reasons below.

## Counts

| checkpoints | `torch` | `openvino` | `mlx` |
|---|---|---|---|
"""
_WORDS = {"equal": "equal", "refused": "refused", "decided": "decided", "known": "known to be wrong"}


def page() -> str:
    """Return the manual's page of FILE."""
    rows = expected()
    text = _INTRO.format(cases=len(rows))
    for group, cases in [*GROUPS.items(), ("All", CASES)]:
        columns = zip(*(rows[name] for name in cases), strict=True)
        text += f"| {group} | {' | '.join(_count(column) for column in columns)} |\n"
    tables: dict[tuple[str, str], dict[str, list[str]]] = {}

    def add(title: str, header: str, why: str, name: str) -> None:
        tables.setdefault((title, header), {}).setdefault(why, []).append(f"`{name}`")

    for name, cells in rows.items():
        if "decided" in cells:
            add("Decided", "why", decided(name), name)
        if all(cell.startswith("refused") for cell in cells):
            add("Refused by every engine", "error", _in_a_cell(cells[0]), name)
    for place, engine in enumerate(ENGINES):
        for name, cells in rows.items():
            if cells[place] == "known":
                add(f"Known to be wrong on `{engine}`", "why", known(name, engine), name)
            elif cells[place].startswith("refused") and not all(cell.startswith("refused") for cell in cells):
                add(f"Refused by `{engine}`", "error", _in_a_cell(cells[place]), name)
    tables["Kinds of differences", "what once made numbers wrong"] = kinds()
    return text + "".join(_section(*heading, found) for heading, found in tables.items())


def _count(column: Iterable[str]) -> str:
    counts = Counter(cell.partition(":")[0] for cell in column)
    return ", ".join(f"{counts[key]} {word}" for key, word in _WORDS.items() if counts[key])


def _section(title: str, header: str, rows: dict[str, list[str]]) -> str:
    """Return a table of reasons and the checkpoints that each is for."""
    lines = [f"| {why} | {', '.join(names)} |" for why, names in rows.items()]
    return "\n".join([f"\n## {title}\n", f"| {header} | checkpoints |", "|---|---|", *lines, ""])


def _in_a_cell(cell: str) -> str:
    """Return a refusal without what is of one family or one measurement, so that like ones share a row."""
    text = cell.removeprefix("refused: ").replace("|", "\\|").replace("\n", " ")
    for pattern, general in _GENERAL:
        text = pattern.sub(general, text)
    return "`" + text.replace("`", "'") + "`"
