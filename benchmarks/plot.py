"""Results as pictures: SVG by matplotlib, which is needed by nothing else here. Without it there is only the table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CLOSED = re.compile(r"S1-(float|base64)-c(\d+)")
_OPEN = re.compile(r"open-(\d+)%")
_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")


def draw_server(result: dict[str, Any], path: Path) -> None:
    """Draw throughput and latency of single short texts by number of clients, and the open loop."""
    figure = _figure(3)
    if figure is None:
        return
    rows = {row["name"]: row for row in result["cells"]}
    speed, waits, opened = figure.subplots(1, 3)
    for encoding in ("float", "base64"):
        points = sorted(
            (int(found[2]), row)
            for name, row in rows.items()
            if (found := _CLOSED.fullmatch(name)) and found[1] == encoding
        )
        _line(speed, points, "texts_per_s", encoding)
        _line(waits, points, "p99_ms", f"{encoding}, p99")
        _line(waits, points, "p50_ms", f"{encoding}, p50")
    _label(speed, "single short texts", "clients", "texts/s")
    _label(waits, "their latency", "clients", "ms")
    shares = sorted((int(found[1]), row) for name, row in rows.items() if (found := _OPEN.fullmatch(name)))
    for name in _PERCENTILES:
        _line(opened, shares, name, name.removesuffix("_ms"))
    _label(opened, "latency when requests just arrive", "% of the throughput of 64 clients", "ms")
    for axes in (speed, waits):
        axes.set_xscale("log", base=2)
    _save(figure, path)


def draw_peers(result: dict[str, Any], path: Path) -> None:
    """Draw bars: a panel a cell, a bar a server, longer is faster."""
    cells = list(dict.fromkeys(row["name"] for rows in result["servers"].values() for row in rows["cells"]))
    figure = _figure(len(cells))
    if figure is None or not cells:
        return
    panels = figure.subplots(1, len(cells), squeeze=False)[0]
    for axes, cell in zip(panels, cells, strict=True):
        found = {
            name: row["texts_per_s"]["median"]
            for name, rows in reversed(result["servers"].items())
            for row in rows["cells"]
            if row["name"] == cell
        }
        bars = axes.barh(list(found), list(found.values()))
        axes.bar_label(bars, fmt="%.0f", padding=2)
        axes.set_title(cell)
        axes.set_xlabel("texts/s")
        axes.margins(x=0.2)
    _save(figure, path)


def draw_engines(result: dict[str, Any], path: Path) -> None:
    """Draw bars: a panel a workload, a bar an engine, by how many times sentence-transformers' speed."""
    workloads = result["workloads"]
    figure = _figure(len(workloads))
    if figure is None:
        return
    for axes, (workload, rows) in zip(figure.subplots(1, len(workloads), sharey=True), workloads.items(), strict=True):
        found = {name: row["ratio"]["median"] for name, row in reversed(rows.items())}
        bars = axes.barh(list(found), list(found.values()))
        axes.bar_label(bars, fmt="%.2f", padding=2)
        axes.set_title(f"{workload}: {result['mean_tokens'][workload]:.0f} tokens a text")
        axes.set_xlabel("× sentence-transformers")
        axes.margins(x=0.2)
    _save(figure, path)


def _figure(panels: int) -> Figure | None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: pip install matplotlib")
        return None
    return Figure(figsize=(5 * panels, 4), layout="constrained")


def _line(axes: Axes, points: Sequence[tuple[int, dict[str, Any]]], name: str, label: str) -> None:
    """Draw medians, with whiskers from the least to the most of the rounds."""
    if not points:
        return
    found = [row[name] for _, row in points]
    middle = [one["median"] for one in found]
    below = [one["median"] - one["min"] for one in found]
    above = [one["max"] - one["median"] for one in found]
    axes.errorbar([at for at, _ in points], middle, yerr=(below, above), label=label, marker="o", capsize=2)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    print(f"drawn: {path}")
