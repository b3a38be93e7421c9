"""Which engine runs: the requested one, or the first that can run here; never another without a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import ENGINES
from llm_reranker_models import write_llm_reranker

from nearfar import ModelSettings, Settings
from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines import OpenRequest, Recipe
from nearfar.engines.selection import EngineChoice, choose_engines, installed_engines, open_with, prefer_prefix_sharing
from nearfar.serving.registry.discovery import discover_model

if TYPE_CHECKING:
    from nearfar.engines import Device, Engine

RECIPE = Recipe(
    architecture="BertModel", model_type="bert", task="embed", max_tokens=48, hidden_size=8, pooling=("mean",)
)


def run_program(program: str, *sites: Path) -> str:
    """Run the lines in a new interpreter that finds packages in the sites too; return the last line printed."""
    header = "import sys\nsys.path[:0] = sys.argv[1:]\nfrom nearfar.engines.selection import choose_engines\n"
    command = [sys.executable, "-c", header + program, *map(str, sites)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return ran.stdout.splitlines()[-1]


def choosing(name: str) -> str:
    return (
        f"try: print(choose_engines({name!r}, 'cpu')[0].name)\n"
        "except Exception as error: print(f'{type(error).__name__}: {error}')\n"
    )


def test_a_requested_engine_is_the_one_chosen_and_opens() -> None:
    [choice] = choose_engines("fake", "cpu")

    engine = choice.kind.open(OpenRequest(folder=Path(), recipe=RECIPE, device="cpu", dtype="float32"))

    assert ("fake", "requested") == (choice.name, choice.reason)
    assert installed_engines()["fake"] is choice.kind
    assert ("fake", 8) == (engine.info.name, engine.info.dim)


class _Kind:
    priority = 0

    def __init__(self, *, shares_prefixes: bool) -> None:
        self.shares_prefixes = shares_prefixes

    def unavailable_reason(self, device: Device) -> None:
        raise AssertionError(device)

    def open(self, request: OpenRequest) -> Engine:
        raise AssertionError(request)


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        ([("openvino", False), ("torch", True)], ["torch", "openvino"]),
        ([("mlx", True), ("torch", True)], ["mlx", "torch"]),
        ([("openvino", False)], ["openvino"]),
        ([("torch", True)], ["torch"]),
    ],
)
def test_an_engine_that_shares_prefixes_goes_first_for_llm_rerankers(
    available: list[tuple[str, bool]], expected: list[str]
) -> None:
    choices = [EngineChoice(name=name, kind=_Kind(shares_prefixes=shares), reason="") for name, shares in available]

    found = prefer_prefix_sharing(choices)

    assert expected == [choice.name for choice in found]
    assert ("computes the prefix" in found[0].reason) == (found[0].name != available[0][0])


def test_only_an_llm_reranker_prefers_such_an_engine_and_a_requested_one_stays(bert: Path, tmp_path: Path) -> None:
    reranker = write_llm_reranker(tmp_path, "qwen3-reranker")

    default, preferred, requested = (
        discover_model(ModelSettings(name=str(folder)), Settings(engine=engine, device="cpu")).choices[0].name
        for folder, engine in ((bert, "auto"), (reranker, "auto"), (reranker, ENGINES[-1]))
    )

    assert default == choose_engines("auto", "cpu")[0].name
    assert preferred in {"torch", "mlx"}
    assert requested == ENGINES[-1]


def test_the_automatic_choice_is_the_highest_priority_that_can_run_here_and_never_one_below_0() -> None:
    kinds = installed_engines()
    available = [name for name, kind in kinds.items() if kind.priority >= 0 and not kind.unavailable_reason("auto")]

    choices = choose_engines("auto", "auto")

    assert sorted(available, key=lambda name: -kinds[name].priority) == [choice.name for choice in choices]
    assert choices[0].reason.endswith("first that can run here")


def test_an_engine_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(EngineUnavailable) as refused:
        choose_engines("tensorflow", "cpu")

    expected = f"there is no engine 'tensorflow'; there are {', '.join(sorted(installed_engines()))}, and auto"
    assert expected == str(refused.value)


def test_a_requested_engine_that_cannot_run_is_refused_and_not_replaced() -> None:
    with pytest.raises(EngineUnavailable, match=r"^engine 'fake': the fake has no cuda; use cpu$"):
        choose_engines("fake", "cuda")


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_without_its_packages_the_torch_engine_explains_how_to_install_them(package: str) -> None:
    hidden = f"sys.modules[{package!r}] = None\n"  # what Python itself writes there for a package that isn't installed

    error = run_program(hidden + choosing("torch"))

    assert f"""EngineUnavailable: engine 'torch': {package} not installed; pip install "nearfar[torch]\"""" == error


def test_where_no_engine_can_run_the_error_has_every_reason() -> None:
    hidden = "for name in ('torch', 'mlx', 'openvino'): sys.modules[name] = None\n"

    error = run_program(hidden + choosing("auto"))

    assert error.startswith("EngineUnavailable: no engine can run here (")
    assert """not torch: torch not installed; pip install "nearfar[torch]\"""" in error


def test_choosing_imports_nothing_heavy() -> None:
    heavy = run_program(
        "choose_engines('auto', 'cpu')\n"
        "print({'torch', 'transformers', 'safetensors', 'mlx', 'openvino', 'sentence_transformers'} & {*sys.modules})"
    )

    assert heavy == "set()"


def test_a_plugin_that_fails_to_import_is_refused_with_the_reason_and_no_other_is(tmp_path: Path) -> None:
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[nearfar.engines]\nbroken = no_such_module_anywhere:kind\n")

    assert run_program(choosing("torch"), tmp_path) == "torch"
    assert run_program(choosing("broken"), tmp_path).startswith(
        "EngineUnavailable: engine 'broken': its package can't be imported (ModuleNotFoundError: "
    )


class Failing:
    """An engine that opens no checkpoint."""

    priority = 1

    def __init__(self, error: Exception) -> None:
        self._error = error

    def unavailable_reason(self, _device: Device) -> None:
        return None

    def open(self, _request: OpenRequest) -> Engine:
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("Check failed\n at core.cpp"), IndexError(), MemoryError("no memory")])
def test_what_a_library_raises_becomes_a_sentence_with_a_way_out(error: Exception, tmp_path: Path) -> None:
    choice = EngineChoice(name="openvino", kind=Failing(error), reason="requested")
    request = OpenRequest(folder=tmp_path, recipe=RECIPE, device="cpu", dtype="float32")
    with pytest.raises(
        EngineUnavailable, match=rf"can't open it \({type(error).__name__}.*use --engine .*torch"
    ) as raised:
        open_with(choice, request)
    assert "core.cpp" not in str(raised.value)


def test_a_refusal_of_an_engine_stays_as_it_is(tmp_path: Path) -> None:
    choice = EngineChoice(name="openvino", kind=Failing(CheckpointError("the weights are damaged")), reason="requested")
    request = OpenRequest(folder=tmp_path, recipe=RECIPE, device="cpu", dtype="float32")
    with pytest.raises(CheckpointError, match=r"^the weights are damaged$"):
        open_with(choice, request)
