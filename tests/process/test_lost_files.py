"""Model files that are deleted or changed under a running server, and a full disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from checkpoints import write_transformer
from conftest import calling, running
from server_process import ServerProcess

from nearfar import ModelSettings, Settings
from nearfar.core.settings import BUILTIN_MODEL
from nearfar.models.hub.checkpoint import find_builtin

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

EMBED = "/v1/embeddings"
needs_openvino = pytest.mark.skipif(not find_spec("openvino"), reason="OpenVINO isn't installed")


def embed(model: str) -> dict[str, object]:
    return {"model": model, "input": ["some words", "hello"]}


def vectors(answer: httpx.Response) -> list[list[float]]:
    return [item["embedding"] for item in answer.json()["data"]]


async def test_a_model_in_memory_survives_its_folder_and_loading_it_again_is_a_503(bert: Path) -> None:
    models = (ModelSettings(name=str(bert), engine="torch"), ModelSettings(name=BUILTIN_MODEL, engine="fake"))

    async with running(Settings(models=models, device="cpu")) as app, calling(app) as client:
        before = await client.post(EMBED, json=embed("bert"))
        shutil.rmtree(bert)
        there = await client.post(EMBED, json=embed("bert"))
        unloaded = await client.post("/admin/models/unload", json={"model": "bert"})
        gone, other = await asyncio.gather(
            client.post(EMBED, json=embed("bert")), client.post(EMBED, json=embed(BUILTIN_MODEL))
        )
        ready = await client.get("/health/ready")

    assert before.json() == there.json()
    assert [200, 503, 200, 200] == [each.status_code for each in (unloaded, gone, other, ready)]
    assert "bert failed to load; the server's log says why" in gone.text
    assert str(bert) not in gone.text
    assert "retry-after" in gone.headers


def test_truncated_weights_of_a_running_model_cost_one_worker(tmp_path: Path, measurements: dict[str, object]) -> None:
    """They are memory-mapped, so reading the lost part is a SIGBUS. The file is whole again before the restart."""
    folder = tmp_path / "minilm"
    shutil.copytree(find_builtin().folder, folder)
    weights = folder / "model.safetensors"
    with ServerProcess(str(folder), "--engine", "torch", "--device", "cpu", "--dtype", "float32") as server:
        first = server.workers()[0]
        before = httpx.post(f"{server.url}{EMBED}", json=embed("minilm"), timeout=60)
        shutil.copy(weights, tmp_path / "whole")
        os.truncate(weights, 1000)
        (tmp_path / "whole").replace(weights)
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{server.url}{EMBED}", json=embed("minilm"), timeout=60)
        measurements["ready again after s"] = round(server.wait_until_ready(), 2)
        after = httpx.post(f"{server.url}{EMBED}", json=embed("minilm"), timeout=60)
        second = server.workers()[0]

    assert first != second
    np.testing.assert_allclose(vectors(before), vectors(after), atol=1e-5)  # another process may choose other kernels
    assert any(f"was killed by {signal.SIGBUS.name}" in entry["message"] for entry in server.log)


@pytest.mark.parametrize(("first", "broken"), [(True, "folder"), (False, "weights")], ids=["default", "not default"])
def test_a_model_that_is_gone_at_a_restart_does_not_affect_the_others(
    bert: Path, tmp_path: Path, first: bool, broken: str
) -> None:
    """No other model answers in its place: requests for it, or for the default that it was, get a 503."""
    models = [f'{{ name = "{bert}", engine = "torch", device = "cpu" }}', f'{{ name = "{BUILTIN_MODEL}" }}']
    settings = tmp_path / "nearfar.toml"
    settings.write_text(f'engine = "fake"\nmodels = [{", ".join(models if first else reversed(models))}]\n')

    def status(model: str) -> int:
        answer = httpx.post(f"{server.url}{EMBED}", json=embed(model), timeout=60)
        assert (answer.status_code == 503) == ("retry-after" in answer.headers)
        return answer.status_code

    with ServerProcess("--config", str(settings)) as server:
        assert [200] * 3 == [status(name) for name in ("bert", BUILTIN_MODEL, "text-embedding-3-small")]
        if broken == "folder":
            shutil.rmtree(bert)
        else:
            next(bert.glob("*.safetensors")).write_bytes(b"")
        os.kill(server.workers()[0], signal.SIGKILL)
        server.wait_until_ready()
        after = [status(name) for name in ("bert", BUILTIN_MODEL, "text-embedding-3-small")]

    assert [503, 200, 503 if first else 200] == after


@needs_openvino
def test_a_full_disk_prevents_caching_a_conversion_and_not_serving_it(tmp_path: Path) -> None:
    with ServerProcess("--engine", "openvino", NEARFAR_CACHE_DIR=str(tmp_path), limits="ulimit -f 2000") as server:
        answer = httpx.post(f"{server.url}{EMBED}", json=embed(BUILTIN_MODEL), timeout=60)

    assert 200 == answer.status_code
    assert any("it will be converted at every start" in entry["message"] for entry in server.log)
    assert [] == [*(tmp_path / "openvino").iterdir()]


@needs_openvino
def test_two_processes_may_fill_one_cache_at_once(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "bert", "bert")
    arguments = (str(folder), "--engine", "openvino", "--dtype", "float32")
    servers = [ServerProcess(*arguments, NEARFAR_CACHE_DIR=str(tmp_path / "cache")) for _ in range(2)]

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(ServerProcess.__enter__, servers))
    try:
        answers = [httpx.post(f"{server.url}{EMBED}", json=embed("bert"), timeout=60) for server in servers]
    finally:
        for server in servers:
            server.__exit__(None, None, None)

    np.testing.assert_allclose(vectors(answers[0]), vectors(answers[1]), atol=1e-5)
    assert 1 == len([*(tmp_path / "cache" / "openvino").iterdir()])
    assert not [entry for server in servers for entry in server.log if entry.get("level") in {"error", "warning"}]
