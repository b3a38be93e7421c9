"""Figures as text and as JSON."""

from __future__ import annotations

import json
import math
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Sum up what the rounds gave: the median, and what it lies between. Rounds without an answer are left out."""
    known = [value for value in values if not math.isnan(value)] or [math.nan]
    return {"median": statistics.median(known), "min": min(known), "max": max(known)}


def figure(value: float, digits: int = 3) -> str:
    """Write a number to so many significant digits, without exponents; a dash where there is none."""
    if math.isnan(value):
        return "–"
    whole = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:,.{max(0, digits - whole)}f}"


def figure_in_spread(found: dict[str, float]) -> str:
    """Write a median and, in brackets, what it lies between."""
    return f"{figure(found['median'])} ({figure(found['min'])}–{figure(found['max'])})"


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a result down; what isn't a number becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_without_nan(value), indent=1, ensure_ascii=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
