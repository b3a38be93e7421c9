"""Results as tables and as JSON."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parents[1] / "results"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as aligned text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, min and max over the rounds, without NaN (rounds in which no request succeeded)."""
    known = [value for value in values if not math.isnan(value)] or [math.nan]
    return {"median": statistics.median(known), "min": min(known), "max": max(known)}


def number(value: float, digits: int = 3) -> str:
    """Format a number to that many significant digits, without exponents; NaN as a dash."""
    if math.isnan(value):
        return "–"
    integer_digits = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:,.{max(0, digits - integer_digits)}f}"


def median_and_range(values: dict[str, float]) -> str:
    """Format what ``spread`` returned: the median with min and max in parentheses."""
    return f"{number(values['median'])} ({number(values['min'])}–{number(values['max'])})"


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a result as JSON, NaN as null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_without_nan(value), indent=1, ensure_ascii=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
