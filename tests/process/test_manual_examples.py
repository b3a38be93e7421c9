"""The clients and commands in README and the manual do what they show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from manual import blocks
from server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from manual import Block

ADDRESS = "http://127.0.0.1:9000"  # in every code block
PYTHON = blocks("python")
SHELL = [block for block in blocks("sh") if block.options == "run"]


@pytest.fixture(scope="module")
def manual_server() -> Iterator[ServerProcess]:
    """Run a real server with the built-in model on Torch."""
    with ServerProcess("--engine", "torch", "--device", "cpu", "--dtype", "float32") as server:
        yield server


def run_python(block: Block, url: str) -> subprocess.CompletedProcess[str]:
    """Run a Python block against a server."""
    code = block.code.replace(ADDRESS, url)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def run_shell(code: str, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Run shell commands in a folder that is also the home; curl fails if the answer is an error."""
    (folder / ".curlrc").write_text("fail-with-body\nshow-error\n")
    command = folder / "bin" / "nearfar"  # the installed one may be that of another checkout
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nearfar "$@"\n')
    command.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NEARFAR_", "XDG_"))}
    environment = {
        **inherited,
        "HOME": str(folder),
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "NEARFAR_ENGINE": "torch",
        "NEARFAR_DEVICE": "cpu",
    }
    bash = shutil.which("bash")
    assert bash
    words = [bash, "-euo", "pipefail", "-c", code.replace(ADDRESS, url)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.usefixtures("_offline_tiktoken")
@pytest.mark.parametrize("block", [block for block in PYTHON if block.page == "README"], ids=lambda block: block.place)
def test_readme_s_clients_print_what_it_shows_on_every_engine(server: ServerProcess, block: Block) -> None:
    ran = run_python(block, server.url)

    assert block.output == ran.stdout, ran.stderr


@pytest.mark.parametrize("block", [block for block in PYTHON if block.page != "README"], ids=lambda block: block.place)
def test_a_page_s_python_prints_what_it_shows(manual_server: ServerProcess, block: Block) -> None:
    ran = run_python(block, manual_server.url)

    assert block.output == ran.stdout, ran.stderr


@pytest.mark.parametrize("page", dict.fromkeys(block.page for block in SHELL))
def test_a_page_s_commands_run_one_after_another(page: str, manual_server: ServerProcess, tmp_path: Path) -> None:
    failed = []
    for block in SHELL:
        if block.page == page:
            ran = run_shell(block.code, tmp_path, manual_server.url)
            if ran.returncode or (block.output is not None and block.output != ran.stdout):
                failed.append(f"{block.place}: {ran.returncode}: {ran.stdout[-500:]}{ran.stderr[-500:]}")

    assert [] == failed


def test_the_log_line_has_the_fields_of_a_real_one(manual_server: ServerProcess) -> None:
    [block] = [block for block in blocks("json") if '"nearfar.access"' in block.code]
    body = {"model": "rerank-v3.5", "query": "Where is the cat?", "documents": ["The cat sat.", "Rates rose."]}

    httpx.post(f"{manual_server.url}/v2/rerank", json=body, timeout=30).raise_for_status()
    manual_server.until_logged("/v2/rerank", "path")

    line = manual_server.log[paths(manual_server).index("/v2/rerank")]
    assert list(line) == list(json.loads(block.code))


def paths(server: ServerProcess) -> list[str]:
    """Return the path of each line of the log, or an empty string."""
    return [entry.get("path", "") for entry in server.log]
