"""An upload during which the worker is killed again and again: its parts are kept, and what broke off is removed."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import openai
from server_process import ServerProcess, until

if TYPE_CHECKING:
    from pathlib import Path

PART = 8_000_000


def test_an_upload_outlives_kills(tmp_path: Path) -> None:
    parts = [bytes([at]) * PART for at in range(3)]
    folder = tmp_path / "files"
    with ServerProcess("--engine", "fake", NEARFAR_STATE_DIR=str(tmp_path)) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=10)
        upload = client.uploads.create(
            bytes=PART * len(parts), filename="in.jsonl", mime_type="application/jsonl", purpose="batch"
        )
        ids = []
        for data in parts:
            killing = threading.Thread(target=_kill_while_partial, args=(server, folder, PART // 10))
            killing.start()
            ids.append(client.uploads.parts.create(upload.id, data=data).id)
            killing.join()
        killing = threading.Thread(target=_kill_while_partial, args=(server, folder, PART))
        killing.start()
        done = client.uploads.complete(upload.id, part_ids=ids)
        killing.join()
        assert done.file
        content = client.files.content(done.file.id).content

    assert content == b"".join(parts)
    assert {path.name for path in folder.iterdir()} == {done.file.id}
    assert sum("the worker was killed" in entry["message"] for entry in server.log) == len(parts) + 1


def _kill_while_partial(server: ServerProcess, folder: Path, size: int) -> None:
    """Kill the worker while it writes a file, once that has so many bytes."""
    until(lambda: any(_size(path) >= size for path in folder.glob("*.partial")), 60)
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_until_ready()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
