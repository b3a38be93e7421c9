"""Nothing is written outside of the cache and temporary files, and no name is looked up, by any command or engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from checkpoints import write_transformer
from server_process import ServerProcess

# Python imports this at the start of every process, and forked processes inherit it. It logs each use of the network
# except of the addresses that a server listens on, and refuses it, so that a failing test sends nothing either. It logs
# each file that Python writes outside of the folders where that is allowed; traces() finds those of other code.
SITECUSTOMIZE = """
import os, sys

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {{"os.mkdir": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2, "os.truncate": 1, "sqlite3.connect": 1}}
NETWORK = {{
    "socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
    "urllib.Request",
}}

def watch(event, arguments):
    if event in NETWORK and not any(own in str(arguments) for own in ("127.0.0.1", "'::1'")):
        note(event, *arguments)
        raise OSError("no network in this test")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        check(event, arguments[:1])
    elif event in CHANGES:
        check(event, arguments[:CHANGES[event]])

def check(event, paths):
    for path in paths:
        if isinstance(path, (str, bytes, os.PathLike)):
            absolute = os.path.abspath(os.fsdecode(path))
            if not absolute.startswith({allowed!r}):
                note(event, absolute)

def note(*words):
    with open({log!r}, "a") as log:
        print(*words, file=log)

sys.addaudithook(watch)
"""
# OpenVINO reports nothing from a CI job.
NOT_CI = {"CI": "", "TF_BUILD": "", "JENKINS_URL": ""}
ENGINES = ("torch", "openvino", "mlx")
# Torch's empty folder for compiled code, and what MLX compiles for a CPU; both in the folder for temporary files.
LIBRARIES_OWN = ("torchinductor_", "mlx")
REQUESTS = {
    "/v1/embeddings": {"input": ["a cat", "a dog"]},
    "/v1/rerank": {"query": "cat", "documents": ["a cat", "a dog"]},
    "/represent": {"input": ["a cat"]},
}
MODULES = (
    *("torch", "transformers", "safetensors", "tokenizers", "huggingface_hub", "litestar", "granian"),
    *("nearfar.process.worker", "nearfar.engines.torch.engine"),
    *("nearfar.engines.openvino.engine", "nearfar.engines.openvino.conversion"),
)


class Watched(NamedTuple):
    home: Path  # also the current folder
    log: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> None:
        """Run Python, and wait for it and for the threads and processes that it started."""
        command = [sys.executable, *arguments]
        ended = subprocess.run(
            command, check=False, env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=120
        )
        assert 0 == ended.returncode, ended.stderr

    def traces(self) -> list[str]:
        """Return the files that are left, those written elsewhere, and what was attempted on the network."""
        folders = (self.home, Path(self.environment["TMPDIR"]))
        left = [str(path.relative_to(folder)) for folder in folders for path in folder.rglob("*")]
        left = [path for path in left if not path.startswith(LIBRARIES_OWN)]
        return left + self.log.read_text().splitlines()


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    home, log, site, temporary, cache = (tmp_path / name for name in ("home", "log", "site", "temporary", "cache"))
    for folder in (home, site, temporary):
        folder.mkdir()
    log.touch()
    allowed = (*(f"{folder}" for folder in (cache, temporary, log)), f"{tmp_path}/made", "/dev/", "/proc/self/")
    (site / "sitecustomize.py").write_text(SITECUSTOMIZE.format(log=str(log), allowed=allowed))
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(site),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(temporary),
        "TORCHINDUCTOR_CACHE_DIR": str(temporary / "torchinductor_"),  # Torch sets it in the tests' own process
        "NEARFAR_CACHE_DIR": str(cache),
        "NEARFAR_VERIFY": "true",
        **NOT_CI,
    }
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


def test_what_is_written_elsewhere_is_noticed(watched: Watched, tmp_path: Path) -> None:
    watched.run("-c", f"import os; os.mkdir({str(tmp_path / 'other')!r}); open({str(tmp_path / 'file')!r}, 'w')")

    assert [f"os.mkdir {tmp_path}/other", f"open {tmp_path}/file"] == watched.traces()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_that_loads_verifies_and_answers_leaves_no_trace(
    engine: str, watched: Watched, tmp_path: Path
) -> None:
    folder = write_transformer(tmp_path / "made", "bert")

    verify = () if engine == "torch" else ("--no-verify",)  # it is the same for all

    with ServerProcess(str(folder), "--offline", "--engine", engine, *verify, **watched.environment) as server:
        server.wait_until_ready()
        for path, body in REQUESTS.items():
            assert 200 == httpx.post(f"{server.url}{path}", json=body, timeout=60).status_code

    assert 0 == server.process.returncode
    assert [] == watched.traces()


def test_a_check_leaves_no_trace(watched: Watched) -> None:
    watched.run("-m", "nearfar", "check", "--offline")

    assert [] == watched.traces()


def test_a_conversion_writes_its_folder_alone(watched: Watched, tmp_path: Path) -> None:
    folder, out = write_transformer(tmp_path / "made", "bert", hidden_size=64), tmp_path / "made-4bit"

    watched.run("-m", "nearfar", "convert", str(folder), "--offline", "--out", str(out))

    assert (out / "model.safetensors").is_file()
    assert [] == watched.traces()
