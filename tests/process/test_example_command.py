"""The command that the log shows at the start works as pasted: with a key, and where no model embeds."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from checkpoints import write_transformer
from server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

START = "try it: "


def paste(server: ServerProcess, key: str) -> str:
    """Run the logged command in a shell, and return what it prints."""
    server.until_logged(START)
    [command] = [entry["message"].removeprefix(START) for entry in server.log if entry["message"].startswith(START)]
    environment = {**os.environ, "NEARFAR_API_KEY": key}
    ran = subprocess.run(
        ["/bin/sh", "-c", f"{command} --silent --fail-with-body"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == ran.returncode, f"{command}\n{ran.stdout}"
    return ran.stdout


@pytest.mark.parametrize("key", ["", "sk-1"])
def test_the_logged_command_embeds(key: str) -> None:
    with ServerProcess("--engine", "fake", **({"NEARFAR_API_KEY": key} if key else {})) as server:
        answer = paste(server, key)

    assert '"embedding":[' in answer


def test_the_logged_command_ranks_where_no_model_embeds(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "it's a reranker", "bert", labels=1)
    with ServerProcess("--engine", "fake", str(folder)) as server:
        answer = paste(server, "")

    assert '"relevance_score":' in answer
