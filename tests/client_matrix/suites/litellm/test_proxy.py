"""The same routes through LiteLLM's proxy: one process with all of them, called with OpenAI's and Cohere's bodies."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matrix import NEAREST, PASSAGES, QUERY, assert_vectors, call
from test_routes import EMBEDDINGS, RERANKS, options_of

START_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the proxy with every route, each under its own name."""
    folder = tmp_path_factory.mktemp("proxy")
    routes = EMBEDDINGS | {f"{name}#rank": base for name, base in RERANKS.items()}
    served = [
        {"model_name": name, "litellm_params": options_of(name.removesuffix("#rank"), base)}
        for name, base in routes.items()
    ]
    config = folder / "config.yaml"
    settings = {"num_retries": 0, "telemetry": False}
    general = {"dangerously_permit_weak_or_unset_master_key": True}  # it listens on the loopback only
    config.write_text(json.dumps({"model_list": served, "litellm_settings": settings, "general_settings": general}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    with (folder / "proxy.log").open("wb") as log:
        process = subprocess.Popen([*command, "--port", str(port)], env=os.environ, stdout=log, stderr=log)
    try:
        _wait_until_alive(process, f"http://127.0.0.1:{port}", folder / "proxy.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_alive(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health/liveliness", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    raise RuntimeError(log.read_text()[-3000:])


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings(name: str, proxy: str) -> None:
    body = {"model": name, "input": PASSAGES}

    found: Any = call("/v1/embeddings", body, base=proxy)

    assert_vectors(PASSAGES, [item["embedding"] for item in found["data"]])


@pytest.mark.parametrize("name", RERANKS)
def test_rerank(name: str, proxy: str) -> None:
    body = {"model": f"{name}#rank", "query": QUERY, "documents": PASSAGES, "top_n": 2}

    found: Any = call("/v1/rerank", body, base=proxy)

    assert NEAREST == found["results"][0]["index"]
    assert 2 == len(found["results"])
