"""``nearfar check`` and ``nearfar convert`` with real engines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from checkpoints import write_transformer
from click.testing import CliRunner
from conftest import ENGINES
from small_models import write_colbert, write_splade

from nearfar.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


def test_check_describes_the_model_and_tests_it() -> None:
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


def test_check_ends_with_code_1_if_a_model_ranks_wrong(tmp_path: Path) -> None:
    """A reranker with random weights ranks right or wrong by chance; the exit code shows which."""
    folder = write_transformer(tmp_path / "random", "bert", labels=1)

    code, output = run("check", str(folder), "--engine", "torch", "--device", "cpu")

    assert (code == 0) == ("sense    yes" in output)
    assert (code == 1) == ("sense    NO" in output)
    assert "none: a cross-encoder" in output


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("colbert", ["pooling  none: read from modules.json", "vectors  16 dimensions a token"]),
        ("splade", ["pooling  none: read from modules.json", "words"]),
        ("classifier", ["pooling  none: a classifier (LABEL_0, LABEL_1, LABEL_2)", "sense    unknown"]),
    ],
)
def test_check_describes_every_kind_of_model(kind: str, expected: list[str], tmp_path: Path) -> None:
    folder = tmp_path / kind
    if kind == "colbert":
        write_colbert(folder, "bert")
    elif kind == "splade":
        write_splade(folder, "bert")
    else:
        write_transformer(folder, "bert", labels=3)

    output = CliRunner().invoke(main, ["check", str(folder), "--engine", "torch", "--device", "cpu"]).output

    assert all(part in output for part in expected), output


def test_check_opens_every_model_whatever_the_settings_of_loading(tmp_path: Path) -> None:
    folders = [write_transformer(tmp_path / name, "bert") for name in ("first", "second")]
    config = tmp_path / "nearfar.toml"
    models = "".join(f'[[models]]\nname = "{folder}"\nload = "demand"\n' for folder in folders)
    size = (folders[0] / "model.safetensors").stat().st_size
    config.write_text(f'while_loading = "refuse"\nmemory_budget = {size}\n{models}')

    _, output = run("check", "--config", str(config), "--engine", "torch", "--device", "cpu")

    assert 2 == output.count("engine   torch on cpu in float32")
    assert 2 == output.count("texts/s")


@pytest.mark.skipif("mlx" not in ENGINES, reason="mlx isn't installed")
def test_convert_writes_a_folder_and_reports_the_loss(tmp_path: Path) -> None:
    model = write_transformer(tmp_path / "model", "bert")
    options = ("--bits", "8", "--group-size", "32", "--out", str(tmp_path / "q"))

    code, output = run("convert", str(model), *options)
    again, refused = run("convert", str(model), *options)

    assert 0 == code
    assert re.search(
        r"exact +cosine to float32 min 0\.9\d+, mean 0\.9\d+, \d+\.\d+% of neighbors in the order of float32", output
    )
    assert f"serve    nearfar serve {tmp_path / 'q'} --engine mlx" in output
    assert 1 == again
    assert f"Error: {tmp_path / 'q'} already exists; name another folder with --out\n" == refused
    assert "unit length" in run("check", str(tmp_path / "q"), "--engine", "mlx")[1]
