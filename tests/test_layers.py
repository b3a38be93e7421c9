"""The floors: imports go down only, and every heavy library has one door. One table each, and an AST walk."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import nearfar

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = Path(__file__).parent.parent / "src" / "nearfar"
FILES = sorted(SRC.rglob("*.py"))

FLOORS = {
    "errors": 0,
    "types": 0,
    "jobs": 0,
    "config": 0,
    "models": 1,
    "engines": 2,
    "serving": 3,
    "dialects": 4,
    "auth": 5,
    "keys": 5,
    "drain": 5,
    "hosts": 5,
    "logs": 5,
    "monitoring": 5,
    "openapi": 5,
    "checks": 5,
    "converting": 5,
    "unpickling": 5,
    "tracing": 5,
    "access": 5,
    "app": 5,
    "orders": 5,
    "server": 5,
    "supervisor": 5,
    "certificates": 5,
    "units": 5,
    "examples": 5,
    "cli_service": 5,
    "cli": 5,
    "__main__": 5,
    "__init__": 5,
}

PUBLIC = {"nearfar.__version__", *(f"nearfar.{name}" for name in nearfar.__all__)}  # they live in __init__

# library → the places that may import it; a library that isn't here may not be imported at all
DOORS = {
    "click": ["cli", "cli_service"],
    "granian": ["server"],
    "httpx2": ["models/checkpoint"],
    "huggingface_hub": ["models/checkpoint", "checks"],
    "jinja2": ["models/templates"],
    "litestar": ["dialects", "access", "auth", "drain", "hosts", "tracing", "app", "server"],
    "mlx": ["engines/mlx"],
    "mlx_embeddings": ["engines/mlx/library"],
    "msgspec": [""],
    "numpy": ["types", "engines", "serving"],
    "opentelemetry": ["serving/metrics", "serving/tei_metrics", "serving/stopwatch", "access", "tracing"],
    "orjson": ["dialects/vectors"],
    "platformdirs": ["config", "cli_service"],
    "prometheus_client": ["serving/metrics", "dialects/native"],
    "openvino": ["engines/openvino"],
    "safetensors": ["engines/heads", "engines/pickles"],
    "tokenizers": [
        *("models/tokenizer", "models/tokens", "models/special", "models/pieces", "models/marking", "models/colbert")
    ],
    "torch": ["engines/torch", "engines/module", "engines/heads", "engines/pickles", "engines/openvino/conversion"],
    "uvloop": ["cli"],
    "transformers": ["engines/torch", "engines/module", "engines/openvino/conversion", "models/tokenizer"],
}

# standard modules that would betray a floor: no environment outside config, no asyncio below serving
STANDARD_DOORS = {
    "asyncio": ["serving", "dialects", "drain", "app", "orders", "server", "cli"],
    "signal": ["orders", "server", "supervisor"],
    "threading": [],
    "pickle": [],
    "random": ["dialects/__init__"],
    "os": ["config", "units/installing"],
}


def _imports(file: Path) -> Iterator[str]:
    """Give the full name of every module that the file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield f"{node.module}"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _place(file: Path) -> str:
    return file.relative_to(SRC).with_suffix("").as_posix()


def _floor(place: str) -> int:
    return FLOORS[place.partition("/")[0]]


def _within(place: str, doors: list[str]) -> bool:
    return any(door in {"", place} or place.startswith(f"{door}/") for door in doors)


@pytest.mark.parametrize("file", FILES, ids=_place)
def test_imports_go_down_only(file: Path) -> None:
    floor = _floor(_place(file))

    for name in _imports(file):
        package, _, rest = name.partition(".")
        inside = rest.partition(".")[0]
        if package == "nearfar" and (inside in FLOORS or name in PUBLIC):
            assert _floor(inside if inside in FLOORS else "__init__") <= floor, f"{_place(file)} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=_place)
def test_each_library_has_its_door(file: Path) -> None:
    place = _place(file)

    for name in _imports(file):
        library = name.partition(".")[0]
        if library in STANDARD_DOORS:
            assert _within(place, STANDARD_DOORS[library]), f"{place} imports {library}"
        elif library not in sys.stdlib_module_names and library != "nearfar":
            assert _within(place, DOORS.get(library, [])), f"{place} imports {library}"


@pytest.mark.parametrize("kind", ["engines", "dialects"])
def test_siblings_never_import_each_other(kind: str) -> None:
    shared = {
        "dialects": {"vectors", "sharing", "described", "reading", "callers"},
        "engines": {"heads", "module", "padding", "precision", "representing", "scarcity", "sharing"},
    }[kind]
    for file in sorted((SRC / kind).rglob("*.py")):
        own = file.relative_to(SRC / kind).parts[0].removesuffix(".py")
        siblings = {other.stem for other in (SRC / kind).iterdir()} - {own, "__init__", "__pycache__"} - shared

        imported = {".".join(name.split(".")[:3]) for name in _imports(file)}

        assert not imported & {f"nearfar.{kind}.{sibling}" for sibling in siblings}, file.name


@pytest.mark.parametrize("file", FILES, ids=_place)
def test_the_environment_is_read_in_one_file(file: Path) -> None:
    names = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}

    assert _place(file) == "config" or not names & {"environ", "getenv"}


@pytest.mark.parametrize("file", FILES, ids=_place)
def test_no_function_outgrows_a_screen(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 45, f"{_place(file)}: {node.name} is too long"
