"""The dashboard and the alert rules in a real Prometheus that scrapes a real server, where Prometheus is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from server_process import BODY, ServerProcess, free_port, until

from nearfar.cli.assets import MONITORING, read_asset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(not PROMETHEUS, reason="prometheus isn't installed")

VARIABLES = {"$__rate_interval": "10s", "$instance": ".*", "$model": ".*"}
RULES = ("alerts", "tei-rules")
EMPTY = {"nearfar_engine_memory_bytes"}  # only some engines measure it


@contextmanager
def prometheus(folder: Path, server: ServerProcess) -> Iterator[str]:
    """Run Prometheus, which scrapes the server twice a second; yield its address."""
    for part in RULES:
        (folder / f"{part}.yml").write_text(read_asset(MONITORING[part]))
    target = {"job_name": "nearfar", "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}]}
    every = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    settings = {"global": every, "rule_files": [f"{part}.yml" for part in RULES], "scrape_configs": [target]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    port = free_port()
    assert PROMETHEUS
    command = [
        PROMETHEUS,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command, cwd=folder) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: _answers(f"{url}/-/ready"), 30)
            until(lambda: bool(_query(url, "up == 1")), 30)
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def _use(server: ServerProcess) -> None:
    """Trigger everything that is counted, except failed loads."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for text in ("one", "word " * 300, "boom"):
            client.post("/v1/embeddings", json={**BODY, "input": text})
        [model] = client.get("/v1/models").json()["data"]
        client.post("/admin/models/unload", json={"model": model["id"]})
        client.post("/v1/embeddings", json=BODY)


def _query(url: str, expression: str) -> list[Any]:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}, timeout=60).json()
    assert "success" == answer["status"], answer
    found: list[Any] = answer["data"]["result"]
    return found


def test_every_panel_and_recorded_metric_has_data_and_every_alert_is_evaluated(tmp_path: Path) -> None:
    panels = json.loads(read_asset(MONITORING["dashboard"]))["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    groups = yaml.safe_load(read_asset(MONITORING["tei-rules"]))["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"]}
    required = recorded | {each for each in expressions if not any(name in each for name in EMPTY)}

    with ServerProcess("--engine", "fake") as server, prometheus(tmp_path, server) as url:
        ends_at = time.monotonic() + 90
        while (missing := _missing(url, required)) and time.monotonic() < ends_at:
            _use(server)
        groups = httpx.get(f"{url}/api/v1/rules", timeout=60).json()["data"]["groups"]

    assert [] == missing
    rules = [rule for group in groups for rule in group["rules"]]
    assert {"ok"} == {rule["health"] for rule in rules}
    assert len(required) > len(recorded) + 20


def _missing(url: str, required: set[str]) -> list[str]:
    """Return the expressions without data and the names of rules that were not evaluated yet."""
    groups = httpx.get(f"{url}/api/v1/rules", timeout=60).json()["data"]["groups"]
    waiting = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "unknown"]
    return waiting + [expression for expression in required if not _query(url, expression)]
