"""Dialects → their operations, one by one, each with what it says of itself."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.route_docs import RouteDocs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PARAMETER = re.compile(r"\{(\w+):\w+\}")  # Litestar's spelling; OpenAPI's has no type


class Told(Struct, frozen=True, kw_only=True):
    """One operation of one dialect. A path and method that several share have as many; ``fields`` tell them apart."""

    dialect: Dialect
    path: str
    method: str
    public: bool
    about: RouteDocs
    docstring: str
    fields: tuple[str, ...] = ()


def told_by(dialects: Sequence[Dialect]) -> Iterator[Told]:
    """List every operation. Raises KeyError for a handler without route docs."""
    for dialect in dialects:
        for handler in dialect.handlers:
            opt = handler.opt
            for path in sorted(handler.paths):
                for method in sorted(handler.http_methods):
                    yield Told(
                        dialect=dialect,
                        path=_PARAMETER.sub(r"{\1}", path),
                        method=method.lower(),
                        public=bool(opt.get("public")),
                        about=opt["docs"],
                        docstring=prose(handler.fn.__doc__),
                    )
        for route in dialect.shared:
            docstring = prose(route.handler.__doc__)
            yield Told(
                dialect=dialect,
                path=route.path,
                method="post",
                public=False,
                about=route.docs,
                docstring=docstring,
                fields=route.fields,
            )


def prose(docstring: str | None) -> str:
    """Turn a docstring into Markdown."""
    return inspect.cleandoc(docstring or "").replace("``", "`")
