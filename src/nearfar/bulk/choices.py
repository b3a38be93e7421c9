"""What a command makes of rows: the numbers it writes, the columns, and what becomes of bad rows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

OutputDtype = Literal["float32", "float16", "int8", "binary"]
OnBad = Literal["skip", "fail", "empty"]


class Layout(Struct, frozen=True):
    """The columns of a file: ``beside`` are ``id``, then ``start`` and ``stop`` of chunks, and ``text``."""

    column: Literal["vector", "score"]
    beside: tuple[str, ...]


class Options(Struct, frozen=True, kw_only=True):
    """What becomes of the vectors and of bad rows."""

    out: Path
    column: Literal["vector", "score"]
    dtype: OutputDtype = "float32"
    on_bad: OnBad = "fail"
    refuses_cut: bool = False  # a text over the model's limit is a bad row
    keeps_text: bool = False
    chunk: int | None = None  # tokens

    @property
    def layout(self) -> Layout:
        """Return the columns of the output."""
        chunks = ("start", "stop") if self.chunk else ()
        return Layout(self.column, ("id", *chunks, *(("text",) if self.keeps_text else ())))
