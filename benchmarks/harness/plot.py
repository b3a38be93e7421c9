"""Results as SVG plots. Needs matplotlib; without it, no plot is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Point = tuple[float, dict[str, float] | float]  # (x, spread or value)


def plot_bars(panels: Mapping[str, Mapping[str, float]], unit: str, path: Path, *, form: str = "%.0f") -> None:
    """Plot one panel of horizontal bars per entry of ``panels``: label → value."""
    figure = _figure(len(panels))
    if figure is None or not panels:
        return
    for axes, (title, values) in zip(_panels(figure, len(panels)), panels.items(), strict=True):
        bars = axes.barh([*values][::-1], [*values.values()][::-1])
        axes.bar_label(bars, fmt=form, padding=2)
        axes.set_title(title)
        axes.set_xlabel(unit)
        axes.margins(x=0.2)
    _save(figure, path)


class LinePlot:
    """One panel of lines. ``lines`` maps a label to points; a spread is drawn with whiskers from min to max."""

    def __init__(self, title: str, x: str, y: str, *, log_x: bool = False) -> None:
        self.title, self.x, self.y, self.log_x = title, x, y, log_x
        self.lines: dict[str, Sequence[Point]] = {}

    def draw(self, axes: Axes) -> None:
        """Draw the lines and labels."""
        for label, points in self.lines.items():
            spreads = [y if isinstance(y, dict) else {"median": y, "min": y, "max": y} for _, y in points]
            medians = [each["median"] for each in spreads]
            below = [each["median"] - each["min"] for each in spreads]
            above = [each["max"] - each["median"] for each in spreads]
            axes.errorbar([x for x, _ in points], medians, yerr=(below, above), label=label, marker="o", capsize=2)
        axes.set_title(self.title)
        axes.set_xlabel(self.x)
        axes.set_ylabel(self.y)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        if any(self.lines.values()):
            axes.legend()
            if self.log_x:  # which fails without values
                axes.set_xscale("log", base=2)


def plot_lines(plots: Sequence[LinePlot], path: Path) -> None:
    """Plot the panels side by side."""
    figure = _figure(len(plots))
    if figure is None:
        return
    for axes, plot in zip(_panels(figure, len(plots)), plots, strict=True):
        plot.draw(axes)
    _save(figure, path)


def _figure(panels: int) -> Figure | None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: pip install matplotlib")
        return None
    return Figure(figsize=(5 * panels, 4), layout="constrained")


def _panels(figure: Figure, count: int) -> Sequence[Any]:
    panels: Sequence[Any] = figure.subplots(1, count, squeeze=False)[0]
    return panels


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    print(f"plot: {path}")
