"""Types → JSON Schema, as msgspec makes it, with the components they refer to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from nearfar.http.openapi.operations import prose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.dialects.kit.base import Dialect

    Json = dict[str, Any]

_REFERENCE = "#/components/schemas/"


class Schemas:
    """Schemas of types, and the components they refer to, each under its dialect's name."""

    def __init__(self) -> None:
        self.components: Json = {}
        self._errors: dict[str, Json] = {}

    def of_errors(self, dialect: Dialect) -> Json:
        """Give the schema of a dialect's errors, which every operation of it refers to."""
        if dialect.name not in self._errors:
            self._errors[dialect.name] = self.of(dialect.error_reply, dialect)
        return self._errors[dialect.name]

    def of(self, kind: Any, dialect: Dialect) -> Json:
        """Give the schema of a type, or of any in a tuple. Raises ValueError where a dialect has two of one name."""
        if isinstance(kind, tuple):
            return any_of([self.of(one, dialect) for one in kind])
        template = f"{_REFERENCE}{dialect.name}.{{name}}"
        (schema,), found = msgspec.json.schema_components([kind], ref_template=template)
        for name, component in found.items():
            component["description"] = prose(component.get("description"))
            there = self.components.setdefault(f"{dialect.name}.{name}", component)
            if there != component:
                raise ValueError(f"{dialect.name} has two types called {name}")
        return schema


def any_of(schemas: Sequence[Json]) -> Json:
    """Say that a value is of one of these schemas."""
    distinct = [schema for at, schema in enumerate(schemas) if schema not in schemas[:at]]
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}
