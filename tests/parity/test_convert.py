"""``nearfar unpickle`` keeps every number and runs no code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from checkpoints import write_files, write_transformer
from click.testing import CliRunner
from safetensors.torch import load_file
from small_models import write_m3

from nearfar.cli.main import main
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from pathlib import Path


def pickled(folder: Path) -> Path:
    """Convert a checkpoint's safetensors to pickles, the format of BGE-M3."""
    for file in folder.glob("*.safetensors"):
        weights = load_file(file)
        file.unlink()
        name = "pytorch_model.bin" if file.stem == "model" else f"{file.stem}.pt"
        torch.save(weights, folder / name)
    return folder


def unpickle(*argv: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["unpickle", *map(str, argv)])
    return done.exit_code, done.output


def test_a_model_and_its_heads_are_converted(tmp_path: Path) -> None:
    folder = write_m3(tmp_path / "bge-m3")
    expected = {file.name: load_file(file) for file in folder.glob("*.safetensors")}

    code, output = unpickle(pickled(folder), "--out", tmp_path / "new")

    assert (0, f"serve  nearfar serve {tmp_path / 'new'}") == (code, output.splitlines()[-1])
    assert ("dense", "multi_vector", "sparse") == read_recipe(tmp_path / "new").outputs
    for name, weights in expected.items():
        found = load_file(tmp_path / "new" / name)
        assert sorted(weights) == sorted(found)
        for key, value in weights.items():
            np.testing.assert_array_equal(value, found[key])


def test_shards_get_an_index(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "shards", "bert")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {f"pytorch_model-0000{at + 1}-of-00002.bin": dict(list(weights.items())[at::2]) for at in (0, 1)}
    for name, part in parts.items():
        torch.save(part, folder / name)
    where = {key: name for name, part in parts.items() for key in part}
    write_files(folder, {"pytorch_model.bin.index.json": {"metadata": {}, "weight_map": where}})

    code, _ = unpickle(folder, "--out", tmp_path / "new")

    assert 0 == code
    index = json.loads((tmp_path / "new/model.safetensors.index.json").read_text())["weight_map"]
    for key, name in index.items():
        np.testing.assert_array_equal(weights[key], load_file(tmp_path / "new" / name)[key])


class Exploit:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (type(self.file).touch, (self.file,))


def test_a_pickle_with_code_is_refused_and_leaves_no_files(tmp_path: Path) -> None:
    folder = pickled(write_transformer(tmp_path / "evil", "bert"))
    torch.save({"weight": Exploit(tmp_path / "was run")}, folder / "pytorch_model.bin")

    code, output = unpickle(folder, "--out", tmp_path / "new")

    assert 1 == code
    assert "pytorch_model.bin: not read, because it is damaged or contains more than tensors" in output
    assert not (tmp_path / "was run").exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("case", ["nothing pickled", "there already"])
def test_no_pickles_or_an_existing_folder_is_refused(case: str, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", "bert")
    if case == "there already":
        pickled(folder)

    code, output = unpickle(folder, "--out", tmp_path)

    assert 1 == code
    assert {"nothing pickled": "has no pickled weights", "there already": "already exists"}[case] in output
