"""Engines and dialects from other packages: public names suffice, and one that is broken doesn't break the server."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import calling, running

import nearfar
import nearfar.dialects
import nearfar.engines
from nearfar import Settings
from nearfar.dialects.kit.routing import installed_dialects
from nearfar.engines.selection import installed_engines

if TYPE_CHECKING:
    import types

PLUGINS = Path(__file__).parents[1] / "plugins"
DEMO = PLUGINS / "demo_dialect"


def install(folder: Path, group: str, name: str, target: str, source: str) -> None:
    """Write a package that registers a plugin, as pip would install it."""
    (folder / f"{target.partition(':')[0]}.py").write_text(source)
    info = folder / f"{name}-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")


@pytest.mark.parametrize(
    ("file", "public"),
    [("nearfar_fakes.py", nearfar.engines), ("demo_dialect/nearfar_demo.py", nearfar.dialects)],
    ids=["an engine", "a dialect"],
)
def test_a_plugin_needs_only_public_names(file: str, public: types.ModuleType) -> None:
    imported = {
        (node.module or "", alias.name)
        for node in ast.walk(ast.parse((PLUGINS / file).read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    ours = {(module, name) for module, name in imported if module.partition(".")[0] == "nearfar"}

    assert ours
    assert ours <= {(public.__name__, name) for name in public.__all__}


@pytest.mark.parametrize("package", ["nearfar", "nearfar.dialects", "nearfar.engines"])
def test_every_public_name_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)

    assert not [name for name in module.__all__ if not hasattr(module, name)]


@pytest.mark.anyio
async def test_a_dialect_from_another_package_answers_and_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DEMO)

    async with running(Settings(engine="fake")) as app, calling(app) as client:
        answer = await client.post("/demo/embed", json={"text": "a cat"})
        refusal = await client.post("/demo/embed", json={"text": ""})
        lost = await client.get("/demo/nothing")
        document = (await client.get("/openapi.json")).json()

    assert (200, 4, 384) == (answer.status_code, answer.json()["tokens"], len(answer.json()["vector"]))
    assert (422, {"problem": "text is empty"}) == (refusal.status_code, refusal.json())
    assert (404, ["problem"]) == (lost.status_code, [*lost.json()])
    assert "/demo/embed" in document["paths"]


@pytest.mark.parametrize("group", ["nearfar.engines", "nearfar.dialects"])
def test_a_plugin_that_cannot_be_imported_is_logged_and_skipped(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(installed_dialects())
    install(tmp_path, group, "broken", "nearfar_broken:plugin", "import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)

    dialects, engines = installed_dialects(), installed_engines()

    assert before == len(dialects)
    assert "broken" not in engines or "no_such_library" in (engines["broken"].unavailable_reason("cpu") or "")
    assert [f"skipped plugin broken of {group}: ModuleNotFoundError: No module named 'no_such_library'"] == [
        record.message for record in caplog.records
    ]


def test_a_dialect_plugin_that_is_no_dialect_is_logged_and_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(installed_dialects())
    install(tmp_path, "nearfar.dialects", "odd", "nearfar_odd:plugin", "plugin = 1")
    monkeypatch.syspath_prepend(tmp_path)

    assert before == len(installed_dialects())
    assert "skipped plugin odd of nearfar.dialects: it is not a Dialect but of type int" in caplog.text
