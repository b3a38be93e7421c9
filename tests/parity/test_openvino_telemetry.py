"""OpenVINO reports nothing and writes nothing under the home folder, and no other library does when imported."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

# Python imports this at the start of every process, and forked processes inherit it. It logs each use of the network
# except of 127.0.0.1, which a server listens on, and refuses it, so that a failing test sends nothing either.
SITECUSTOMIZE = """
import sys

def watch(event, arguments):
    if event in {{
        "socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
        "urllib.Request",
    }} and "127.0.0.1" not in str(arguments):
        with open({log!r}, "a") as log:
            print(event, *arguments, file=log)
        raise OSError("no network in this test")

sys.addaudithook(watch)
"""
# OpenVINO reports nothing from a CI job.
NOT_CI = {"CI": "", "TF_BUILD": "", "JENKINS_URL": ""}
MODULES = (
    *("torch", "transformers", "safetensors", "tokenizers", "huggingface_hub", "litestar", "granian"),
    *("nearfar.process.worker", "nearfar.engines.torch.engine"),
    *("nearfar.engines.openvino.engine", "nearfar.engines.openvino.conversion"),
)


class Watched(NamedTuple):
    home: Path
    log: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> None:
        """Run Python, and wait for it and for the threads and processes that it started."""
        command = [sys.executable, *arguments]
        subprocess.run(command, check=True, env=self.environment, capture_output=True, timeout=120)

    def traces(self) -> list[str]:
        """Return the files under the home folder, and what was attempted on the network."""
        return [str(path.relative_to(self.home)) for path in self.home.rglob("*")] + self.log.read_text().splitlines()


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    home, log, site = (tmp_path / name for name in ("home", "log", "site"))
    home.mkdir()
    site.mkdir()
    log.touch()
    (site / "sitecustomize.py").write_text(SITECUSTOMIZE.format(log=str(log)))
    environment = {"HOME": str(home), "PYTHONPATH": str(site), "NEARFAR_CACHE_DIR": str(tmp_path / "cache"), **NOT_CI}
    return Watched(home, log, environment)


def test_openvino_imported_without_nearfar_reports_itself(watched: Watched) -> None:
    """The other tests would notice: the child process of a thread looks a name up, and a file is left."""
    watched.run(
        *("-c", "import openvino.tools.ovc; openvino.tools.ovc.telemetry.sender.executor.shutdown(wait=True)"),
    )

    traces = watched.traces()
    assert "intel/openvino_ga_cid" in traces
    assert any("www.google-analytics.com" in trace for trace in traces)


def test_importing_libraries_uses_no_network_and_leaves_no_file(watched: Watched) -> None:
    watched.run("-c", f"import {', '.join(MODULES)}")

    assert [] == watched.traces()


def test_a_server_that_converts_a_model_uses_no_network_and_leaves_no_file(watched: Watched) -> None:
    with ServerProcess("--offline", "--engine", "openvino", **watched.environment) as server:
        server.wait_until_ready()

    assert any(entry["message"].startswith("converting ") for entry in server.log)
    assert 0 == server.process.returncode
    assert [] == watched.traces()
