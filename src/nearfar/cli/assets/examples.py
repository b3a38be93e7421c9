"""Settings and configurations to start from, as files that ``nearfar example`` prints."""

from __future__ import annotations

from importlib.resources import files

NAMES = {"development": "development.toml", "production": "production.toml", "nginx": "nginx.conf"}


def read_example(name: str) -> str:
    """Give the text of one of NAMES."""
    return files(__package__).joinpath(NAMES[name]).read_text(encoding="utf-8")
