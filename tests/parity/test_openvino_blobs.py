"""OpenVINO's compiled models are compared when they are read, and what can't be converted truly is refused for good."""

from __future__ import annotations

import logging
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from checkpoints import write_transformer
from safetensors import safe_open
from safetensors.numpy import save_file

from nearfar.core.errors import EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("openvino")


def order_of(folder: Path, cache: Path) -> OpenRequest:
    recipe = read_recipe(folder)
    probes = TextEncoder(folder, recipe).sample_rows()
    return OpenRequest(
        folder=folder, recipe=recipe, device="cpu", dtype="float32", probes=probes, cache_dir=cache, threads=1
    )


def test_every_start_returns_the_numbers_of_the_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    request = order_of(write_transformer(tmp_path / "model", "lfm2"), tmp_path)
    expected = installed_engines()["torch"].open(request).embed(request.probes)

    for _ in range(4):  # LFM2's compiled model comes back with other outputs: so no start may use it
        engine = installed_engines()["openvino"].open(request)
        assert np.abs(engine.embed(request.probes) - expected).max() < 1e-4
        engine.close()

    assert 1 == caplog.text.count("can't read back the compiled model")


def test_a_compiled_model_with_other_outputs_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    request = order_of(write_transformer(tmp_path / "model", "bert"), tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            installed_engines()["openvino"].open(request).close()
        assert "compiled model" not in caplog.text  # this one comes back as it was
        (blob,) = tmp_path.rglob("*.blob")
        (stored,) = tmp_path.rglob("compiled-float32.npy")
        np.save(stored, -np.load(stored))
        installed_engines()["openvino"].open(request).close()

    assert "can't read back the compiled model" in caplog.text
    assert not blob.exists()


def test_a_refused_conversion_is_not_repeated(tmp_path: Path) -> None:
    request = order_of(write_transformer(tmp_path / "model", "convbert"), tmp_path)
    with pytest.raises(EngineUnavailable, match="differ from torch's") as first:
        installed_engines()["openvino"].open(request)
    assert not list(tmp_path.rglob("model.bin"))
    with pytest.raises(EngineUnavailable) as second:
        installed_engines()["openvino"].open(request)
    assert str(first.value) == str(second.value)


def test_positions_in_half_precision_are_refused(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", "falcon", alibi=True)
    with pytest.raises(EngineUnavailable, match="rounds to half precision"):
        installed_engines()["openvino"].open(order_of(folder, tmp_path))


def test_gemma_3_attends_in_both_directions(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", "gemma3_text", use_bidirectional_attention=True)
    request = order_of(folder, tmp_path)
    expected = installed_engines()["torch"].open(request).embed(request.probes)
    found = installed_engines()["openvino"].open(request).embed(request.probes)
    assert np.abs(found - expected).max() < 1e-4


def test_a_cached_model_is_only_used_as_it_was_written_and_for_its_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another model's entry, with torch's answers that fit it, takes its place."""
    request, other = (order_of(write_transformer(tmp_path / name, "bert"), tmp_path / "cache") for name in ("a", "b"))
    weights = tmp_path / "b" / "model.safetensors"
    with safe_open(weights, framework="np") as opened:
        save_file({name: opened.get_tensor(name) * np.float32(1.5) for name in opened.keys()}, weights)  # noqa: SIM118
    expected = installed_engines()["torch"].open(request).embed(request.probes)
    for each in (request, other):
        installed_engines()["openvino"].open(each).close()
    entry, planted = sorted((tmp_path / "cache" / "openvino").glob("[ab]-*"))

    for file in planted.iterdir():
        shutil.copy2(file, entry)
    found = installed_engines()["openvino"].open(request).embed(request.probes)

    assert np.abs(found - expected).max() < 1e-4
    assert "isn't of these weights, or was changed" in caplog.text


def test_other_weights_of_the_same_size_and_time_are_converted_again(tmp_path: Path) -> None:
    request = order_of(write_transformer(tmp_path / "a", "bert"), tmp_path / "cache")
    installed_engines()["openvino"].open(request).close()
    weights = tmp_path / "a" / "model.safetensors"
    before = weights.stat()

    with safe_open(weights, framework="np") as opened:
        tensors = {name: opened.get_tensor(name) * np.float32(1.5) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    save_file(tensors, weights, metadata)
    assert before.st_size == weights.stat().st_size
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    expected = installed_engines()["torch"].open(request).embed(request.probes)
    found = installed_engines()["openvino"].open(request).embed(request.probes)

    assert np.abs(found - expected).max() < 1e-4
