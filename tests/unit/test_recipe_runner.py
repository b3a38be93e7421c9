"""Every recipe of the manual that has code runs in an environment with what it installs, and can fail."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from environments import PythonEnvironment
from manual import Block, codes, read
from recipes import read_environments, read_recipes, run_block

FOLDER = Path(__file__).parents[1] / "client_matrix"


def sections() -> dict[str, str]:
    """Return each recipe's text by its heading."""
    parts = re.split(r"^## (.+)\n", read("recipes"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_recipe_with_code_has_an_environment_and_shows_what_it_prints() -> None:
    recipes = {name: recipe for name, recipe in read_recipes().items() if name != "Recipes"}

    assert read_environments().keys() == recipes.keys()
    assert [] == [block.place for recipe in recipes.values() for block in recipe if block.output is None]


def test_every_environment_has_the_packages_that_the_recipe_installs() -> None:
    missing = []
    for name, environment in read_environments().items():
        requirements = (FOLDER / environment / "requirements.txt").read_text(encoding="utf-8")
        [sentence] = re.findall(r"Install (?:`[^`]+`[, and\n]*)+", sections()[name])
        installed = {line.partition("==")[0] for line in requirements.splitlines()}
        missing += [f"{name}: {package}" for package in codes(sentence) if package not in installed]

    assert [] == missing


def test_a_recipe_that_fails_or_prints_something_else_is_reported(tmp_path: Path) -> None:
    environment = PythonEnvironment("recipes/none")
    environment.folder = Path(sys.prefix)
    variables = {"URL": "http://127.0.0.1:1"}
    reports = [
        run_block(
            Block(page="recipes", line=1, language=language, options="recipe", code=code, output="1\n"),
            environment,
            str(tmp_path),
            variables,
        )
        for language, code in [
            ("python", "print(1)"),
            ("python", "print(2)"),
            ("python", "print(1); raise SystemExit(3)"),
            ("sh", "echo 1"),
            ("sh", "echo 1; false"),
        ]
    ]

    assert [False, True, True, False, True] == [bool(report) for report in reports]
    assert "exits with 0 and prints:\n2" in reports[1]
    assert "exits with 3" in reports[2]
