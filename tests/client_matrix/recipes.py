"""Do the manual's recipes print what they show? Each runs as written, in an environment of its own, pinned.

``make test-recipes``, or ``python tests/client_matrix/recipes.py --only Chroma``. The code comes from the page: its
blocks marked ``recipe``. recipes.toml names each recipe's environment. One server with the built-in model serves all.
The exit code is 1 if a recipe can't be installed, fails, or prints something else.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from environments import BUILT, HERE, NotInstalledError, PythonEnvironment, run_tests
from run import serving

sys.path.append(str(HERE.parent / "support"))
from manual import Block, blocks, read

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE, ADDRESS = "recipes", "http://127.0.0.1:9000"
TIMEOUT_S = 300
_PORT = 4000  # of the proxy that a recipe starts


def read_recipes() -> dict[str, list[Block]]:
    """Return the blocks that are run, by the heading above each."""
    lines = read(PAGE).splitlines()
    found: dict[str, list[Block]] = {}
    for block in sorted([*blocks("sh"), *blocks("python")], key=lambda block: block.line):
        if block.page == PAGE and block.options in {"run", "recipe"}:
            heading = next(line for line in reversed(lines[: block.line]) if re.match("#+ ", line))
            found.setdefault(heading.lstrip("# "), []).append(block)
    return found


def read_environments() -> dict[str, str]:
    """Return the environment of each recipe, a folder here."""
    environments: dict[str, str] = tomllib.loads((HERE / "recipes.toml").read_text("utf-8"))
    return environments


def run_block(block: Block, environment: PythonEnvironment, folder: str, variables: dict[str, str]) -> str:
    """Run one block in a folder; return what is wrong with it, or nothing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    code = block.code.replace(ADDRESS, variables["URL"]).replace(str(_PORT), port)
    if block.language == "python":
        command = [str(environment.python), "-W", "ignore", "-c", code]
    else:
        command = ["bash", "-euc", f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{code}"]
    ours = Path(sys.executable).parent  # which has the nearfar command
    path = os.pathsep.join([str(environment.python.parent), str(ours), os.environ["PATH"]])
    ran = run_tests(command, Path(folder), {**variables, "PATH": path}, TIMEOUT_S, subprocess.PIPE)
    if ran.returncode or (block.output is not None and block.output != ran.stdout):
        return f"{block.place} exits with {ran.returncode} and prints:\n{ran.stdout}\n{(ran.stderr or '')[-4000:]}"
    return ""


def run_recipe(name: str, recipe: Sequence[Block], url: str) -> str:
    """Install a recipe's environment and run its blocks in one folder, after the page's own; return what is wrong."""
    environment = PythonEnvironment(read_environments()[name])
    try:
        environment.ensure_installed()
    except NotInstalledError as error:
        return f"can't be installed: {error}"
    with tempfile.TemporaryDirectory() as folder:
        variables = {"URL": url, "HOME": folder}
        prepare = environment.source / "prepare.py"
        if prepare.exists():
            ran = run_tests(
                [str(environment.python), str(prepare)], Path(folder), variables, TIMEOUT_S, subprocess.PIPE
            )
            variables |= dict(line.split("=", 1) for line in ran.stdout.splitlines())
        wrong = (run_block(block, environment, folder, variables) for block in recipe)
        return next(filter(None, wrong), "")


def main() -> int:
    """Run the recipes that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", default=[], metavar="HEADING")
    only = parser.parse_args().only
    recipes = read_recipes()
    shared = recipes.pop("Recipes")
    if unknown := {*only} - recipes.keys():
        raise SystemExit(f"no recipe is named {', '.join(sorted(unknown))}")
    BUILT.mkdir(exist_ok=True)
    failed = False
    with serving("") as url:
        for name, recipe in recipes.items():
            if not only or name in only:
                wrong = run_recipe(name, [*shared, *recipe], url)
                print(f"{name}: {wrong or 'pass'}", flush=True)
                failed = failed or bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
