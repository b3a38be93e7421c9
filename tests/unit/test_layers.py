"""The layers: imports go down only; each library is imported in one place. Every rule lists all offenders."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import nearfar

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = Path(__file__).parents[2] / "src" / "nearfar"

# From bottom to top. A file may import from its own folder and from the rows above its own, never from below.
FOLDERS = [
    "core",
    "docs",
    "models/recipe",
    "models/files",
    "models/hub",
    "models/tokenization",
    "models/reading",
    "telemetry",
    "engines/base",
    "engines/selection",
    "engines/common",
    "engines/transformer",
    "engines",  # torch, openvino and mlx, which never import each other
    "serving/postprocess",
    "serving/offload",
    "serving/queue",
    "serving/verification",
    "serving/registry",
    "serving/timeouts",
    "serving/answers",
    "serving/access",
    "serving/pipeline",
    "serving",
    "batches",
    "bulk",
    "dialects/kit",
    "dialects",  # the wire protocols, which never import each other
    "http/gate",
    "http",
    "process",
    "cli",
    "",
]
SIBLINGS = {"engines": ("mlx", "openvino", "torch"), "dialects": None}  # None: all folders but kit

# library → the places that may import it; a library that isn't here may not be imported at all
LIBRARIES = {
    "click": ["cli"],
    "granian": ["process"],
    "httpx2": ["bulk/remote_model", "models/hub"],
    "huggingface_hub": ["models/hub", "serving/local_models"],
    "jinja2": ["models/files/chat_template", "models/files/template_limits"],
    "markdown_it": ["docs/html"],
    "lancedb": ["bulk/writers"],
    "litestar": ["dialects", "http", "process/worker"],
    "mlx": ["engines/mlx"],
    "multipart": ["dialects/openai/batch/form"],
    "mlx_embeddings": ["engines/mlx/upstream"],
    "msgspec": [""],
    "numpy": ["bulk", "core/types", "dialects/kit/checks", "engines", "serving"],
    "openvino": ["engines/openvino"],
    "opentelemetry": ["telemetry", "http/access_log"],
    "orjson": ["dialects/kit/rendering"],
    "platformdirs": ["core/settings", "cli/service_command"],
    "prometheus_client": ["telemetry/metrics", "dialects/native"],
    "pyarrow": ["bulk/sources"],
    "safetensors": ["models/files/safetensors", "engines/transformer", "serving/verification/reference"],
    "sentence_transformers": ["serving/verification/reference"],
    "tokenizers": [
        "models/files/tokenizer",
        "models/tokenization",
        "models/reading/colbert",
    ],
    "torch": [
        "engines/torch",
        "engines/transformer",
        "engines/openvino/conversion",
        "serving/verification/llm_reference",
        "serving/verification/reference",
    ],
    "transformers": [
        "engines/torch",
        "engines/transformer",
        "engines/openvino/conversion",
        "models/files/causal_models",
        "models/files/tokenizer",
        "serving/verification/llm_reference",
        "serving/verification/reference",
    ],
    "uvloop": ["cli/main"],
    "yaml": ["dialects/cohere/documents"],
    # of the standard library: no environment outside the settings, no asyncio below serving
    "asyncio": ["serving", "batches", "bulk", "dialects", "http", "process", "cli"],
    "os": [
        "batches/store",
        "bulk/partial_results",
        "core/environment",
        "core/toml_files",
        "cli/units/install",
        "process",
        "serving/verification/reference",
    ],
    "pickle": [],
    "random": ["dialects/kit/request"],
    "signal": ["process", "__main__"],
    "threading": ["serving/queue/runner", "telemetry/logs", "engines/openvino/engine"],
}
CONFINED = {"asyncio", "os", "pickle", "random", "signal", "threading"}


def _place(file: Path) -> str:
    return file.relative_to(SRC).with_suffix("").as_posix().removesuffix("/__init__")


FILES = {_place(file): ast.parse(file.read_text()) for file in sorted(SRC.rglob("*.py"))}


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of every module, or name in a module, that is imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _ours(tree: ast.AST) -> Iterator[str]:
    """Yield the places of this package that a file imports; the package itself is ``""``."""
    for name in _imports(tree):
        if name.split(".")[0] == "nearfar":
            place = name.removeprefix("nearfar").lstrip(".").replace(".", "/")
            while place not in FILES and place:
                place = place.rpartition("/")[0]
            yield place


def _floor(place: str) -> int:
    matches = [folder for folder in FOLDERS if not folder or place == folder or place.startswith(f"{folder}/")]
    return FOLDERS.index(max(matches, key=len))


def _is_below(place: str, places: list[str]) -> bool:
    return any(other in {"", place} or place.startswith(f"{other}/") for other in places)


def test_imports_go_down_only() -> None:
    public = {"", "__init__"}  # __version__ and the public names, which are imported when they are first used

    offenders = [
        f"{place} imports {other}"
        for place, tree in FILES.items()
        for other in _ours(tree)
        if other not in public and _floor(other) > _floor(place)
    ]

    assert not offenders


def test_siblings_never_import_each_other() -> None:
    offenders = [
        f"{place} imports {other}"
        for place, tree in FILES.items()
        for other in _ours(tree)
        for parent, names in SIBLINGS.items()
        if (own := _child(place, parent)) and (its := _child(other, parent)) and own != its
        if (its in names if names else its != "kit")
    ]

    assert not offenders


def _child(place: str, parent: str) -> str:
    return place.removeprefix(f"{parent}/").split("/")[0] if place.startswith(f"{parent}/") else ""


def test_each_library_is_imported_in_its_place() -> None:
    offenders = [
        f"{place} imports {library}"
        for place, tree in FILES.items()
        for library in {name.partition(".")[0] for name in _imports(tree)}
        if library != "nearfar" and (library in CONFINED or library not in sys.stdlib_module_names)
        if not _is_below(place, LIBRARIES.get(library, []))
    ]

    assert not offenders


def test_the_environment_is_read_in_one_file() -> None:
    offenders = [
        place
        for place, tree in FILES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    ]

    assert {"core/environment"} == {*offenders}


def test_no_function_is_longer_than_a_screen() -> None:
    offenders = [
        f"{place}: {node.name}"
        for place, tree in FILES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if (node.end_lineno or 0) - node.lineno > 40
    ]

    assert not offenders


def test_no_folder_has_more_than_nine_files() -> None:
    rooms = Counter(place.rpartition("/")[0] for place in FILES if (SRC / f"{place}.py").exists())

    assert not {room: count for room, count in rooms.items() if count > 9}


def test_no_file_name_occurs_twice_outside_dialects_and_engines() -> None:
    names = Counter(
        place.rpartition("/")[2]
        for place in FILES
        if ((SRC / f"{place}.py").exists() and not place.startswith(("dialects/", "engines/"))) or "/kit/" in place
    )

    assert not {name for name, count in names.items() if count > 1}


def test_public_names_can_be_imported() -> None:
    assert not [name for name in nearfar.__all__ if not hasattr(nearfar, name)]
