"""The installed dialects, and which of them answers a request.

A path that several dialects have, such as /tokenize, is dispatched by the fields of the request body.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nearfar.core.plugins import load_plugins
from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.endpoint import PostRoute

GROUP = "nearfar.dialects"
_log = logging.getLogger(__name__)


def installed_dialects() -> list[Dialect]:
    """Load every registered dialect. Logs and skips one that fails to import."""
    found = []
    for name, plugin in load_plugins(GROUP)[0].items():
        if isinstance(plugin, Dialect):
            found.append(plugin)
        else:
            _log.warning(
                "skipped plugin %s of %s: it is not a Dialect but of type %s", name, GROUP, type(plugin).__name__
            )
    return found


def dialect_for_path(path: str, dialects: Sequence[Dialect]) -> Dialect:
    """Return the dialect that has a route of this path, else the one with the longest prefix of it."""
    path = "/" + path.strip("/")  # that of OPTIONS * has no slash
    if owner := next((one for one in dialects for handler in one.handlers if path in handler.paths), None):
        return owner
    prefixes = [(prefix, dialect) for dialect in dialects for prefix in dialect.prefixes if path.startswith(prefix)]
    return max(prefixes, key=lambda found: len(found[0]))[1]


class JobPath:
    """A path of POST, with the dialects that have it."""

    def __init__(self, path: str, candidates: Sequence[tuple[Dialect, PostRoute]]) -> None:
        self.path = path
        # The fallback is the one without fields. It answers a body that has none of the others' fields.
        *self.candidates, self.fallback = sorted(candidates, key=lambda one: (not one[1].fields, one[1].precedence))
        self.owner = self.fallback[0]


def job_paths(dialects: Sequence[Dialect]) -> list[JobPath]:
    """Return the paths of POST, each once."""
    candidates: dict[str, list[tuple[Dialect, PostRoute]]] = {}
    for dialect in dialects:
        for route in dialect.routes:
            for path in route.paths:
                candidates.setdefault(path, []).append((dialect, route))
    return [JobPath(path, found) for path, found in candidates.items()]
