"""The command ``openai`` with files. Version 2.34 is the last with the command; it knows no batches or uploads.

Its ``files.retrieve`` and ``files.delete`` end with an error of their own before they send a request.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matrix import KEY, URL, WRONG_KEY

COMMAND = Path(sys.executable).parent / "openai"


def _run(*arguments: str, key: str = KEY) -> str:
    command = [COMMAND, "--api-base", f"{URL}/v1/", "--api-key", key, "api", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_other_files_are_created_and_listed(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"{}")

    file: Any = json.loads(_run("files.create", "--file", str(tmp_path / "in.jsonl"), "--purpose", "batch"))
    listed = _run("files.list")

    assert (file["object"], Path(file["filename"]).name, file["bytes"]) == ("file", "in.jsonl", 2)
    assert file["id"] in listed


def test_other_models_are_listed() -> None:
    assert "sentence-transformers/all-MiniLM-L6-v2" in _run("models.list")


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        _run("files.list", key=WRONG_KEY)

    assert "Incorrect API key provided" in caught.value.stderr
    assert WRONG_KEY not in caught.value.stderr
