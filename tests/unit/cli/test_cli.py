"""The command line, called as a user calls it, without a server."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from checkpoints import lay, write_transformer
from click.testing import CliRunner
from conftest import ENGINES
from small_models import write_colbert, write_splade

import nearfar
from nearfar.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


def test_version_is_the_packages() -> None:
    assert (0, f"nearfar, version {nearfar.__version__}\n") == run("--version")


@pytest.mark.parametrize("command", ["serve", "check", "convert", "unpickle", "models", "service", "example"])
def test_every_command_explains_itself(command: str) -> None:
    code, output = run(command, "--help")

    assert 0 == code
    assert "Usage:" in output


def test_check_prints_what_the_model_is_and_that_it_makes_sense() -> None:
    code, output = run("check", "--engine", "torch", "--device", "cpu")

    assert 0 == code
    for line in (
        "engine   torch on cpu in float32",
        "pooling  mean (from 1_Pooling/config.json)",
        "vectors  384 dimensions, unit length",
        "limit    256 tokens",
        "sense    yes",
    ):
        assert line in output
    assert re.search(r"speed    [\d,]+ texts/s, [\d,]+ tokens/s", output)


def test_check_says_when_a_model_makes_no_sense(tmp_path: Path) -> None:
    """A reranker of random weights may be wrong or right by chance; the exit code says which."""
    folder = write_transformer(tmp_path / "random", "bert", labels=1)

    code, output = run("check", str(folder), "--engine", "torch", "--device", "cpu")

    assert (code == 0) == ("sense    yes" in output)
    assert (code == 1) == ("sense    NO" in output)
    assert "none: a cross-encoder" in output


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("colbert", ["pooling  none: read from modules.json", "vectors  16 dimensions a token"]),
        ("splade", ["pooling  none: read from modules.json", "words"]),
        ("classifier", ["pooling  none: a classifier (LABEL_0, LABEL_1, LABEL_2)", "sense    not told"]),
    ],
)
def test_check_says_what_other_models_make_of_a_text(kind: str, said: list[str], tmp_path: Path) -> None:
    folder = tmp_path / kind
    if kind == "colbert":
        write_colbert(folder, "bert")
    elif kind == "splade":
        write_splade(folder, "bert")
    else:
        write_transformer(folder, "bert", labels=3)

    output = CliRunner().invoke(main, ["check", str(folder), "--engine", "torch", "--device", "cpu"]).output

    assert all(part in output for part in said), output


def test_check_opens_every_model_whatever_the_settings_say_of_when(tmp_path: Path) -> None:
    folders = [write_transformer(tmp_path / name, "bert") for name in ("first", "second")]
    config = tmp_path / "nearfar.toml"
    models = "".join(f'[[models]]\nname = "{folder}"\nload = "demand"\n' for folder in folders)
    size = (folders[0] / "model.safetensors").stat().st_size
    config.write_text(f'while_loading = "refuse"\nmemory_budget = {size}\n{models}')

    _, output = run("check", "--config", str(config), "--engine", "torch", "--device", "cpu")

    assert 2 == output.count("engine   torch on cpu in float32")
    assert 2 == output.count("texts/s")


def test_check_ends_with_one_sentence_for_a_model_that_cannot_be_had() -> None:
    code, output = run("check", "no-such-model")

    assert 1 == code
    assert "Error: no-such-model: neither a folder nor a Hugging Face name (owner/model)\n" == output


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def a_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def with_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    lay(folder, {"config.json": config | {"auto_map": {"AutoModel": "modeling.Mine"}}})


def unknown(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    lay(folder, {"config.json": config | {"model_type": "unheard-of"}})


def not_json(folder: Path) -> None:
    (folder / "config.json").write_text("<!doctype html>")


@pytest.mark.parametrize(
    ("spoil", "start", "way_out"),
    [
        (cut_short, "/model.safetensors: is truncated or damaged (", "download it again"),
        (a_pointer, "/model.safetensors: is a Git LFS pointer, not the weights", "run git lfs pull"),
        (without_tokenizer, ": has no tokenizer", "download it"),
        (with_code, "/config.json: needs remote code (modeling.Mine)", "serve a model that"),
        (unknown, "/config.json: the installed transformers has no code for the model_type", "update it"),
        (not_json, "/config.json: is damaged or has unexpected content", "fix the file"),
    ],
)
def test_check_ends_with_the_file_at_fault_and_the_way_out(
    spoil: Callable[[Path], None], start: str, way_out: str, tmp_path: Path
) -> None:
    folder = write_transformer(tmp_path / "model", "bert")
    spoil(folder)

    code, output = run("check", str(folder), "--engine", "torch", "--device", "cpu")

    assert 1 == code
    assert output.startswith(f"Error: {folder}{start}")
    assert way_out in output
    assert "Traceback" not in output


def test_models_lists_the_built_in_and_the_engines() -> None:
    code, output = run("models")

    assert 0 == code
    assert "sentence-transformers/all-MiniLM-L6-v2  built-in, verified" in output
    assert "engine torch: can run here" in output


def test_models_describes_the_settings_folders(tmp_path: Path) -> None:
    good = write_transformer(tmp_path / "good", "bert")
    (tmp_path / "empty").mkdir()
    config = tmp_path / "nearfar.toml"
    config.write_text(f'[[models]]\nname = "{good}"\n[[models]]\nname = "{tmp_path / "empty"}"\n')

    _, output = run("models", "--config", str(config))

    assert f"{good}  32 dimensions, mean pooling" in output
    assert f"{tmp_path / 'empty'}  can't be served: " in output


@pytest.mark.skipif("mlx" not in ENGINES, reason="mlx isn't installed")
def test_convert_makes_a_folder_and_says_what_it_costs(tmp_path: Path) -> None:
    model = write_transformer(tmp_path / "model", "bert")
    options = ("--bits", "8", "--group-size", "32", "--out", str(tmp_path / "q"))

    code, output = run("convert", str(model), *options)
    again, refused = run("convert", str(model), *options)

    assert 0 == code
    assert re.search(r"exact +cosine to float32 min 0\.9\d+, mean 0\.9\d+ on 12 probes\n", output)
    assert f"serve    nearfar serve {tmp_path / 'q'} --engine mlx" in output
    assert 1 == again
    assert f"Error: {tmp_path / 'q'} is there already; name another folder with --out\n" == refused
    assert "unit length" in run("check", str(tmp_path / "q"), "--engine", "mlx")[1]
