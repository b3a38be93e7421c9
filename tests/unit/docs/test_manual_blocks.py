"""The code blocks of README and the manual can be loaded, parsed and found; what runs is in the process tests."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from typing import TYPE_CHECKING, Any

import click
import yaml
from manual import EVERYTHING, ROOT, blocks, codes, read

from nearfar.cli.main import main
from nearfar.core.settings import load_settings
from nearfar.http.gate.keys import read_keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
LANGUAGES = {"python", "python recipe", "text", "sh", "sh recipe", "sh run", "toml", "json", "yaml"}


def test_every_code_block_has_a_language_that_is_tested() -> None:
    opened = [(page, mark) for page in EVERYTHING for mark in re.findall(r"^```(.*)$", read(page), re.MULTILINE)[::2]]

    assert [] == [(page, mark) for page, mark in opened if mark not in LANGUAGES]


def test_toml_blocks_are_settings_keys_or_entry_points(tmp_path: Path) -> None:
    refused = []
    for block in blocks("toml"):
        file = tmp_path / "block.toml"
        file.write_text(block.code)
        values = tomllib.loads(block.code)
        try:
            if "project" in values:
                assert values["project"]["entry-points"].keys() <= PROJECT["project"]["entry-points"].keys()
            elif "keys" in values:
                read_keys(file)
            else:
                load_settings({}, file=file, environ={})
        except Exception as error:  # noqa: BLE001 — all offenders are listed
            refused.append(f"{block.place}: {error}")

    assert [] == refused


def test_json_and_yaml_blocks_can_be_parsed() -> None:
    for block in blocks("json"):
        assert json.loads(block.code), block.place
    for block in blocks("yaml"):
        assert yaml.safe_load(block.code), block.place


def commands(code: str) -> Iterator[list[str]]:
    """Yield the words of each command, without variables before it and redirections after it."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        end = next((at for at, word in enumerate(words) if word in {">", ">>", "|"}), len(words))
        if words:
            yield words[:end]


def parse(words: list[str]) -> None:
    """Parse a ``nearfar`` command and run nothing. Raises KeyError or click.UsageError for what it doesn't know."""
    command: click.Command = main
    rest = words[1:]
    while isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    command.make_context(words[0], rest)


def test_every_command_in_a_shell_block_exists() -> None:
    wrong = []
    extras = PROJECT["project"]["optional-dependencies"]
    for block in blocks("sh"):
        for words in commands(block.code):
            try:
                if words[0] == "nearfar":
                    parse(words)
                elif words[0] == "make":
                    assert words[1] in TARGETS, "no such target"
                elif words[:2] == ["pip", "install"]:
                    assert {*re.findall(r"\w+", words[2].partition("[")[2])} <= extras.keys(), "no such extra"
            except (AssertionError, KeyError, click.UsageError) as error:
                wrong.append(f"{block.place}: {shlex.join(words)}: {error!r}")

    assert [] == wrong


def test_every_command_named_in_a_sentence_or_a_table_exists() -> None:
    wrong = []
    for page in EVERYTHING:
        for code in codes(read(page)):
            words = code.split()
            if words[:1] == ["make"] and not {*words[1:2]} <= {*TARGETS}:
                wrong.append(f"{page}: {code}")
            if words[:1] == ["nearfar"] and len(words) > 1 and words[1] != "COMMAND" and not exists(words[1:]):
                wrong.append(f"{page}: {code}")
            if words[:1] == ["python"] and len(words) > 1 and not (ROOT / words[1]).is_file():
                wrong.append(f"{page}: {code}")

    assert [] == wrong


def exists(words: list[str]) -> bool:
    """Return whether there is such a command, with each of the options that are named."""
    command: click.Command | None = main
    while isinstance(command, click.Group) and words:
        command = command.commands.get(words.pop(0))
    if command is None:
        return False
    known = {option for parameter in command.params for option in parameter.opts}
    return {word for word in words if word.startswith("--")} <= {*known, "--help"}
