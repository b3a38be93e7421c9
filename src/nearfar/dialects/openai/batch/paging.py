"""The query of a list, as OpenAI's files and batches have it."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from nearfar.core.errors import InputError
from nearfar.dialects.kit.request import AnyRequest

_T = TypeVar("_T")


def query_docs(kind: type) -> dict[str, Any]:
    """Return the schemas of a query's parameters."""
    found: dict[str, Any] = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"]
    return found


def read_query(request: AnyRequest, kind: type[_T]) -> _T:
    """Return the query. An empty value means absent. Raises InputError for a value that isn't allowed."""
    sent = {name: value for name, value in request.query_params.items() if value}
    try:
        return msgspec.convert(sent, kind, strict=False)
    except msgspec.ValidationError as error:
        name = str(error).split("`")[-2].removeprefix("$.")
        raise InputError(f"{name} can't be {sent.get(name, '')[:50]!r}", name) from error
