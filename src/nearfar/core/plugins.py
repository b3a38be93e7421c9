"""Plugins: engines and dialects that packages register as entry points. A broken one is logged and skipped."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import Any

_log = logging.getLogger(__name__)


def load_plugins(group: str) -> tuple[dict[str, Any], dict[str, Exception]]:
    """Import what is registered in the group. Returns it by name, and the errors of what fails to import, by name."""
    loaded: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    for point in entry_points(group=group):
        try:
            loaded[point.name] = point.load()
        except Exception as error:  # noqa: BLE001 — a plugin may raise anything while it is imported
            failed[point.name] = error
            _log.warning("skipped plugin %s of %s: %s: %s", point.name, group, type(error).__name__, error)
    return loaded, failed
