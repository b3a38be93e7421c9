"""``nearfar models --catalog``: models worth serving, from assets/catalog.toml, and which of them can run here."""

from __future__ import annotations

from collections.abc import Iterator
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


def list_catalog(task: str | None, language: str | None, device: Device, memory: int | None = None) -> Iterator[str]:
    """Yield a line for each model of a task and a language; None means all. ``memory`` in bytes; None measures it."""
    memory = memory or total_memory()
    try:
        engines = ", ".join(choice.name for choice in choose_engines("auto", device))
    except EngineUnavailable:
        engines = ""
    found = [model for model in read_catalog() if task in {None, model.task} and language in {None, model.language}]
    cells = ("model", "task", "language", "size", "dims", "tokens", "float32", "bfloat16", "license", "here")
    rows = [cells, *(_cells(model, memory if engines else 0) for model in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
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


def _short(number: int, units: tuple[str, str]) -> str:
    """Return a number with a unit of a million, or of a thousand million."""
    millions = number / 1e6
    return f"{millions:.0f}{units[0]}" if millions < 1000 else f"{millions / 1000:.1f}{units[1]}"  # noqa: PLR2004


def _fits(model: CatalogModel, bytes_: int, memory: int) -> bool:
    return bytes_ * model.parameters <= memory * _SHARE
