"""What Grafana and Prometheus need to watch a server: a dashboard and alert rules, as files of this package."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal, get_args

Part = Literal["dashboard", "alerts"]
PARTS: tuple[Part, ...] = get_args(Part)

_FILES: dict[Part, str] = {"dashboard": "dashboard.json", "alerts": "alerts.yml"}


def read_part(part: Part) -> str:
    """Give the text of Grafana's dashboard, or of Prometheus' alert rules."""
    return files(__package__).joinpath(_FILES[part]).read_text(encoding="utf-8")
