"""A batch during which the worker is killed again and again: each line is answered once, as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import openai
from server_process import ServerProcess, until

if TYPE_CHECKING:
    from pathlib import Path

    from openai.types import Batch

LINES = 4000
PAUSES_S = (0.1, 0.5, 0.3, 0.7)  # between kills
ENDED = {"completed", "failed", "expired", "cancelled"}


def test_a_batch_outlives_kills(tmp_path: Path) -> None:
    requests = [
        {"custom_id": str(at), "method": "POST", "url": "/v1/embeddings", "body": body}
        for at in range(LINES)
        for body in [{"model": "text-embedding-3-small", "input": f"text {at}" if at % 50 else ""}]
    ]
    data = "\n".join(map(json.dumps, requests)).encode()
    with ServerProcess("--engine", "fake", NEARFAR_STATE_DIR=str(tmp_path)) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=10)
        expected = _finish(client, _start(client, data))
        killed = _start(client, data)
        for pause_s in PAUSES_S:
            time.sleep(pause_s)
            os.kill(server.workers()[0], signal.SIGKILL)
            server.wait_until_ready()
        found = _finish(client, killed)

    assert (found[0].request_counts, found[0].usage) == (expected[0].request_counts, expected[0].usage)
    assert found[1:] == expected[1:]
    assert len(found[1]) + len(found[2]) == LINES
    assert any("the worker was killed" in entry["message"] for entry in server.log)


def _start(client: openai.OpenAI, data: bytes) -> Batch:
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")


def _finish(client: openai.OpenAI, batch: Batch) -> tuple[Batch, list[Any], list[Any]]:
    """Wait for a batch. Return it with the lines of its files, without what differs each time: ids."""
    found = batch

    def has_ended() -> bool:
        nonlocal found
        with suppress(openai.APIConnectionError):
            found = client.batches.retrieve(batch.id)
        return found.status in ENDED

    until(has_ended, 120)
    files = [client.files.content(name or "").text for name in (found.output_file_id, found.error_file_id)]
    lines = [[json.loads(line) for line in file.splitlines()] for file in files]
    for line in (*lines[0], *lines[1]):
        del line["id"], line["response"]["request_id"]
    return found, lines[0], lines[1]
