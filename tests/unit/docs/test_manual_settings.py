"""The manual's tables of settings and commands are those of the code."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import click
import msgspec
from manual import EVERYTHING, codes, read, tables

from nearfar.cli.main import main
from nearfar.core.settings import ModelSettings, Settings
from nearfar.http.gate.keys import KeyEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = "| setting | option | default | what it does |"
BUILTIN = "the built-in model"


def json_schema(page: str = "configuration") -> dict[str, tuple[str, ...]]:
    """Return option, default and description by the setting's name."""
    return {codes(name)[0]: tuple(rest) for name, *rest in tables(page, HEADER)}


def default_of(field: msgspec.structs.FieldInfo) -> object:
    """Return a field's default as TOML has it; None if there is none."""
    return None if field.default is msgspec.NODEFAULT else msgspec.json.decode(msgspec.json.encode(field.default))


def value_of(cell: str) -> object:
    """Return the value of a default's cell."""
    return None if cell in {"none", "server", "required"} else tomllib.loads(f"value = {cell.strip('`')}")["value"]


def choices_of(struct: type, name: str) -> set[str]:
    """Return the values that a field takes if they are few and fixed."""
    hint: Any = get_type_hints(struct)[name]
    literals = [hint, *get_args(hint)]
    return {choice for each in literals if get_origin(each) is Literal for choice in get_args(each)}


def test_every_setting_is_in_the_table_with_its_default() -> None:
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    table = json_schema()

    assert fields.keys() == table.keys()
    assert BUILTIN == table["models"][1]
    wrong = {
        name: (table[name][1], default_of(field))
        for name, field in fields.items()
        if name != "models" and default_of(field) != value_of(table[name][1])
    }
    assert {} == wrong


def test_every_choice_of_a_setting_is_named() -> None:
    table = json_schema()

    missing = {
        name: choices - {*codes(" ".join(table[name])), *(code.strip('"') for code in codes(table[name][1]))}
        for name in Settings.__struct_fields__
        if (choices := choices_of(Settings, name))
    }

    assert {} == {name: choices for name, choices in missing.items() if choices}


def test_every_option_of_serve_is_in_the_table() -> None:
    options = {
        option
        for parameter in main.commands["serve"].params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts
        if option.startswith("--")
    }

    shown = {code for option, *_ in json_schema().values() for code in codes(option)}

    assert options - {"--config", "--help"} == shown - {"MODEL…"}


def test_readme_s_settings_are_ten_of_them_with_the_same_options_and_defaults() -> None:
    readme, manual = json_schema("README"), json_schema()

    assert 10 == len(readme)
    assert {} == {name: cells for name, cells in readme.items() if cells[:2] != manual[name][:2]}


def test_every_setting_of_a_model_is_in_the_table_with_its_default() -> None:
    table = {
        codes(name)[0]: default for name, default, _ in tables("configuration", "| setting | default | what it does |")
    }
    fields = {field.name: field for field in msgspec.structs.fields(ModelSettings)}

    assert fields.keys() == table.keys()
    assert {name for name in fields if name in Settings.__struct_fields__} == {
        name for name, default in table.items() if default == "server"
    }
    assert {"name"} == {name for name, default in table.items() if default == "required"}
    assert {} == {name: table[name] for name, field in fields.items() if default_of(field) != value_of(table[name])}


def test_every_field_of_a_key_is_in_the_table_with_its_default() -> None:
    table = {codes(name)[0]: default for name, default, _ in tables("security", "| field | default | meaning |")}
    fields = {field.name: field for field in msgspec.structs.fields(KeyEntry)}

    assert fields.keys() == table.keys()
    assert {} == {name: table[name] for name, field in fields.items() if default_of(field) != value_of(table[name])}


def test_every_variable_and_every_timeout_that_is_named_is_a_setting() -> None:
    variables = {f"NEARFAR_{name.upper()}" for name in Settings.__struct_fields__} | {"NEARFAR_CONFIG", "NEARFAR_"}
    timeouts = {*Settings.__struct_fields__, *ModelSettings.__struct_fields__}

    unknown = [
        f"{page}: {name}"
        for page in EVERYTHING
        for name in [
            *({*re.findall(r"NEARFAR_[A-Z_]*", read(page))} - variables),
            *({*re.findall(r"`([a-z_]+_s)`", read(page))} - timeouts),
        ]
    ]

    assert [] == unknown


def test_every_command_is_in_the_table() -> None:
    table = [codes(command)[0] for command, _ in tables("configuration", "| command | what it does |")]

    assert sorted(leaves(main, "nearfar")) == sorted(table)


def leaves(command: click.Command, name: str) -> Iterator[str]:
    """Yield the commands that do something."""
    if not isinstance(command, click.Group):
        yield name
        return
    for each, below in command.commands.items():
        if not below.hidden:
            yield from leaves(below, f"{name} {each}")
