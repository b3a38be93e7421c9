"""Files that ``nearfar example`` and ``nearfar monitoring`` print."""

from __future__ import annotations

from importlib.resources import files

EXAMPLES = {"development": "development.toml", "production": "production.toml", "nginx": "nginx.conf"}
MONITORING = {"dashboard": "dashboard.json", "alerts": "alerts.yml", "tei-rules": "tei_rules.yml"}


def read_asset(file: str) -> str:
    """Return the text of one of these files."""
    return files(__package__).joinpath(file).read_text(encoding="utf-8")
