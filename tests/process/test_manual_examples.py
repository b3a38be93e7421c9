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

if TYPE_CHECKING:
    from pathlib import Path

    from manual import Block
    from server_process import ServerProcess

ADDRESS = "http://127.0.0.1:9000"  # in every code block
PYTHON = [block for block in blocks("python") if not block.options]
SHELL = [block for block in blocks("sh") if block.options == "run"]


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
@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_a_page_s_python_prints_what_it_shows(server: ServerProcess, block: Block) -> None:
    ran = run_python(block, server.url)

    assert block.output == ran.stdout, ran.stderr


@pytest.mark.parametrize("page", dict.fromkeys(block.page for block in SHELL))
def test_a_page_s_commands_run_one_after_another(page: str, server: ServerProcess, tmp_path: Path) -> None:
    failed = []
    for block in SHELL:
        if block.page == page:
            ran = run_shell(block.code, tmp_path, server.url)
            if ran.returncode or (block.output is not None and block.output != ran.stdout):
                failed.append(f"{block.place}: {ran.returncode}: {ran.stdout[-500:]}{ran.stderr[-500:]}")

    assert [] == failed


def test_the_log_line_has_the_fields_of_a_real_one(server: ServerProcess) -> None:
    headers = {"x-request-id": "documented"}
    [block] = [block for block in blocks("json") if '"nearfar.access"' in block.code]
    body = {"model": "rerank-v3.5", "query": "Where is the cat?", "documents": ["The cat sat.", "Rates rose."]}

    httpx.post(f"{server.url}/v2/rerank", json=body, headers=headers, timeout=30).raise_for_status()
    server.until_logged("documented", "request_id")

    [line] = [entry for entry in server.log if entry.get("request_id") == "documented"]
    assert list(line) == list(json.loads(block.code))
