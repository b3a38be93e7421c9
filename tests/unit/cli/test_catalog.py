"""The catalog of models: its data, its filters, and what fits a machine."""

from __future__ import annotations

from typing import get_args

import pytest
from click.testing import CliRunner

from nearfar.cli.main import main
from nearfar.cli.models.catalog import CatalogTask, list_catalog, read_catalog
from nearfar.core.settings import BUILTIN_MODEL


def column(lines: list[str], name: str) -> dict[str, str]:
    """Return a column of the table by the model's name."""
    header, *rows = lines[: lines.index("")]
    start = header.index(name)
    return {row.split()[0]: row[start:].split("  ")[0] for row in rows}


def test_every_model_of_the_catalog_has_a_source_and_is_listed_once() -> None:
    models = read_catalog()

    assert {*get_args(CatalogTask)} == {model.task for model in models}
    assert len(models) == len({model.name for model in models})
    assert BUILTIN_MODEL in {model.name for model in models}
    assert [] == [m.name for m in models if not (m.source.startswith(("mteb ", "https://")) and m.license)]
    assert [] == [m.name for m in models if m.task == "embed" and not (m.dimensions and m.max_tokens)]


@pytest.mark.parametrize(
    ("memory", "fits"), [(32_000_000_000, "yes"), (16_000_000_000, "bfloat16"), (8_000_000_000, "no")]
)
def test_a_model_fits_if_its_weights_take_three_quarters_of_the_memory(memory: int, fits: str) -> None:
    lines = [*list_catalog("embed", None, "cpu", memory)]

    assert fits == column(lines, "here")["Qwen/Qwen3-Embedding-4B"]  # 4.02 B parameters
    assert ("16.1 GB", "8.0 GB") == tuple(
        column(lines, dtype)["Qwen/Qwen3-Embedding-4B"] for dtype in ("float32", "bfloat16")
    )


def test_the_command_filters_by_task_and_language() -> None:
    result = CliRunner().invoke(main, ["models", "--task", "rerank", "--language", "multilingual"])

    lines = result.output.splitlines()
    assert 0 == result.exit_code
    assert {"rerank"} == {*column(lines, "task").values()}
    assert {"multilingual"} == {*column(lines, "language").values()}
    assert "BAAI/bge-reranker-v2-m3" in column(lines, "model")


def test_without_the_option_the_command_lists_this_disk() -> None:
    output = CliRunner().invoke(main, ["models"]).output

    assert "engine torch" in output
    assert "BAAI/bge-reranker-v2-m3" not in output


def test_a_narrow_terminal_gets_the_columns_that_it_has_room_for() -> None:
    wide, narrow = ([*list_catalog(None, None, "cpu", width=width)] for width in (300, 80))

    assert "float32" in wide[0]
    assert ["model", "task", "here"] == narrow[0].split()
    assert all(len(line) <= 80 for line in narrow if line.endswith("yes"))
    assert "left out      float32, license," in "\n".join(narrow)
