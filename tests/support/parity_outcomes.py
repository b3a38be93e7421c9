"""What each parity case is expected to do on each engine, and the manual's page made of that."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from manual import FOLDER
from parity_cases import CASES, GROUPS
from parity_cases.known import DECIDED, KNOWN
from parity_run import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

ENGINES = ("torch", "openvino", "mlx")
FILE = Path(__file__).parent / "parity_cases" / "outcomes.json"
PAGE = FOLDER / "parity.md"
# A refusal names a file or a key of one, and a way out.
_NAMES = re.compile(r"\.(json|safetensors|txt|model|jinja|bin|gguf)\b|\b(model_type|model|folder|engine)\b|--\w+|=")
_WAY_OUT = re.compile(
    r"\b(take|use|serve|name|set|convert|merge|download|install|mend|remove|delete|add|save|write|export|run|choose|put)\b"
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
        if expected().get(name, ["refused"] * 3)[ENGINES.index(engine)] == "equal":
            return f"was served, and is refused: {outcome.detail}"
        return "" if _is_clear(outcome.detail) else f"unclear refusal: {outcome.detail}"
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
    reasons: dict[str, list[str]] = {}
    faults: dict[str, list[str]] = {}
    refusals: dict[str, list[str]] = {}
    for name, cells in rows.items():
        if "decided" in cells:
            reasons.setdefault(decided(name), []).append(f"`{name}`")
        for engine in (engine for engine, cell in zip(ENGINES, cells, strict=True) if cell == "known"):
            faults.setdefault(known(name, engine), []).append(f"`{name}` on `{engine}`")
        if all(cell.startswith("refused") for cell in cells):
            refusals.setdefault(_in_a_cell(cells[0]), []).append(f"`{name}`")
    text += _section("Decided", "why", reasons)
    text += _section("Known to be wrong", "why", faults)
    text += _section("Refused by every engine", "error", refusals)
    for place, engine in enumerate(ENGINES[1:], start=1):
        only = [f"`{name}`" for name, cells in rows.items() if cells[place][:7] == "refused" and cells[0] == "equal"]
        title = f"\n## Refused by `{engine}`, served by `torch`\n\n"
        text += f"{title}{textwrap.fill(', '.join(only), 118, break_on_hyphens=False)}\n" if only else ""
    return text


def _count(column: Iterable[str]) -> str:
    counts = Counter(cell.partition(":")[0] for cell in column)
    return ", ".join(f"{counts[key]} {word}" for key, word in _WORDS.items() if counts[key])


def _section(title: str, header: str, rows: dict[str, list[str]]) -> str:
    """Return a table of reasons and the checkpoints that each is for."""
    if not rows:
        return ""
    lines = [f"| {why} | {', '.join(names)} |" for why, names in rows.items()]
    return "\n".join([f"\n## {title}\n", f"| {header} | checkpoints |", "|---|---|", *lines, ""])


def _in_a_cell(cell: str) -> str:
    return cell.removeprefix("refused: ").replace("|", "\\|").replace("\n", " ")
