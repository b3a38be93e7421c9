"""``nearfar models --catalog``: models worth serving, from assets/catalog.toml, and which of them can run here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from nearfar.cli.assets import read_asset
from nearfar.core.environment import total_memory
from nearfar.core.errors import EngineUnavailable
from nearfar.core.settings import Device
from nearfar.engines.selection import choose_engines

CatalogTask = Literal["embed", "rerank", "colbert", "sparse"]
CatalogLanguage = Literal["en", "multilingual"]

# Of the memory, for weights; a guess that leaves a quarter for texts, libraries and the system.
_SHARE = 0.75
# Left out where a terminal is too narrow, the first ones first.
_OPTIONAL = ("float32", "license", "language", "dims", "bfloat16", "tokens", "size", "task")
_HERE = 3  # characters of the last column if all is well


class CatalogModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model of the catalog. What has no source is None."""

    name: str
    task: CatalogTask
    language: CatalogLanguage
    parameters: int
    dimensions: int | None = None
    max_tokens: int | None = None
    license: str | None = None
    # What to do before it can be served.
    note: str = ""
    # Where the figures are from.
    source: str


def read_catalog() -> list[CatalogModel]:
    """Return the catalog's models: by task, language and size."""
    return msgspec.toml.decode(read_asset("catalog.toml"), type=dict[str, list[CatalogModel]])["models"]


def list_catalog(
    task: str | None, language: str | None, device: Device, memory: int | None = None, width: int | None = None
) -> Iterator[str]:
    """Yield a line for each model of a task and a language; None means all.

    ``memory`` is in bytes; None measures it. ``width`` is the terminal's, in characters; None shows all columns.
    """
    memory = memory or total_memory()
    try:
        engines = ", ".join(choice.name for choice in choose_engines("auto", device))
    except EngineUnavailable:
        engines = ""
    found = [model for model in read_catalog() if task in {None, model.task} and language in {None, model.language}]
    cells = ("model", "task", "language", "size", "dims", "tokens", "float32", "bfloat16", "license", "here")
    rows = [cells, *(_cells(model, memory if engines else 0) for model in found)]
    columns = [*zip(*rows, strict=True)]
    left_out = []
    for name in _OPTIONAL:
        if width is None or sum(_width(column) + 2 for column in columns[:-1]) + _HERE <= width:
            break
        left_out.append(name)
        columns = [column for column in columns if column[0] != name]
    for row in zip(*columns, strict=True):
        padded = (cell.ljust(_width(column)) for cell, column in zip(row, columns, strict=True))
        yield "  ".join(padded).rstrip()
    yield ""
    if left_out:
        yield f"left out      {', '.join(left_out)}"
        yield "see all       nearfar models --catalog | less -S"
    size = _short(memory, (" MB", " GB"))
    yield f"this machine  {size}, without a GPU's; engines: {engines or 'none, as nearfar models shows'}"
    yield "serve one     nearfar serve NAME"


def _cells(model: CatalogModel, memory: int) -> tuple[str, ...]:
    fits = next((text for bytes_, text in ((4, "yes"), (2, "bfloat16")) if _fits(model, bytes_, memory)), "no")
    return (
        model.name,
        model.task,
        model.language,
        _short(model.parameters, ("M", "B")),
        str(model.dimensions or "-"),
        str(model.max_tokens or "-"),
        _short(4 * model.parameters, (" MB", " GB")),
        _short(2 * model.parameters, (" MB", " GB")),
        model.license or "-",
        f"{fits}; {model.note}" if model.note else fits,
    )


def _width(column: Sequence[str]) -> int:
    return max(map(len, column))


def _short(number: int, units: tuple[str, str]) -> str:
    """Return a number with a unit of a million, or of a thousand million."""
    millions = number / 1e6
    return f"{millions:.0f}{units[0]}" if millions < 1000 else f"{millions / 1000:.1f}{units[1]}"  # noqa: PLR2004


def _fits(model: CatalogModel, bytes_: int, memory: int) -> bool:
    return bytes_ * model.parameters <= memory * _SHARE
