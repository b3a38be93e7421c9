"""The command line, called as a user calls it, without a server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from checkpoints import write_transformer
from click.testing import CliRunner
from conftest import ENGINES

import nearfar
from nearfar.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


def test_version_is_the_packages() -> None:
    assert (0, f"nearfar, version {nearfar.__version__}\n") == run("--version")


@pytest.mark.parametrize("command", ["serve", "check", "convert", "models"])
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
