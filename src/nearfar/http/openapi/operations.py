"""Dialects → operations, and the types of their bodies → JSON Schema."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.route_docs import RouteDocs
from nearfar.dialects.kit.routing import JobPath, job_paths

Json = dict[str, Any]

_PARAMETER = re.compile(r"\{(\w+):\w+\}")  # Litestar's syntax; OpenAPI's has no type


class Operation(Struct, frozen=True, kw_only=True):
    """One operation of one dialect. Dialects that share a path and method have one each."""

    dialect: Dialect
    path: str
    method: str
    public: bool
    about: RouteDocs
    docstring: str
    # On a path that several share, a body with any of ``fields`` is for this one. It has none of ``earlier_fields``,
    # which are those of the routes that are matched before.
    fields: tuple[str, ...] = ()
    earlier_fields: tuple[str, ...] = ()


def list_operations(dialects: Sequence[Dialect]) -> Iterator[Operation]:
    """Yield every operation. Raises KeyError for a handler without route docs."""
    for dialect in dialects:
        for handler in dialect.handlers:
            for path in sorted(handler.paths):
                for method in sorted(handler.http_methods):
                    yield Operation(
                        dialect=dialect,
                        path=_PARAMETER.sub(r"{\1}", path),
                        method=method.lower(),
                        public=bool(handler.opt.get("public")),
                        about=handler.opt["docs"],
                        docstring=to_markdown(handler.fn.__doc__),
                    )
    for job_path in job_paths(dialects):
        yield from _list_sharing(job_path)


def _list_sharing(job_path: JobPath) -> Sequence[Operation]:
    """Return the operations of a path that runs jobs, the fallback's first: the path belongs to its dialect."""
    found: list[Operation] = []
    earlier: tuple[str, ...] = ()
    for dialect, route in (*job_path.candidates, job_path.fallback):
        fields = () if route is job_path.fallback[1] else route.fields
        operation = Operation(
            dialect=dialect,
            path=job_path.path,
            method="post",
            public=False,
            about=route.docs,
            docstring=to_markdown(route.docs.details),
            fields=fields,
            earlier_fields=earlier,
        )
        found.append(operation)
        if not route.tasks:  # else the model decides as well
            earlier += fields
    return [found[-1], *found[:-1]]


class Schemas:
    """JSON Schemas of types, and the components they refer to, named after their dialect."""

    def __init__(self) -> None:
        self.components: Json = {}

    def of(self, kind: Any, dialect: Dialect) -> Json:
        """Return the schema of a type, or of a tuple of alternatives.

        Raises ValueError for two types of one name in the same dialect.
        """
        if isinstance(kind, tuple):
            return any_of([self.of(one, dialect) for one in kind])
        template = f"#/components/schemas/{dialect.name}.{{name}}"
        (schema,), components = msgspec.json.schema_components([kind], ref_template=template)
        for name, component in components.items():
            component["description"] = to_markdown(component.get("description"))
            known = self.components.setdefault(f"{dialect.name}.{name}", component)
            if known != component:
                raise ValueError(f"{dialect.name} has two types named {name}")
        return schema


def any_of(schemas: Sequence[Json]) -> Json:
    """Return a schema that accepts what any of these accepts."""
    distinct = [schema for at, schema in enumerate(schemas) if schema not in schemas[:at]]
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def to_markdown(docstring: str | None) -> str:
    """Convert a docstring to Markdown."""
    return inspect.cleandoc(docstring or "").replace("``", "`")
