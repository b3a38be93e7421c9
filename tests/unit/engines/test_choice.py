"""Which engine runs: the one asked for, or the first that can; never another without a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import ENGINES
from llm_reranker_models import write_judge

from nearfar import ModelSettings, Settings
from nearfar.core.errors import EngineUnavailable
from nearfar.engines.base import Choice, EngineOrder, choose_engines, installed_engines, prefer_sharing
from nearfar.models.recipe.recipe import Recipe
from nearfar.serving.registry.discovery import find_model

if TYPE_CHECKING:
    from nearfar.core.settings import Device
    from nearfar.engines.base import Engine

RECIPE = Recipe(
    architecture="BertModel", model_type="bert", task="embed", max_tokens=48, hidden_size=8, pooling=("mean",)
)


def answer_of(program: str, *sites: Path) -> str:
    """Run the lines in a fresh interpreter that finds packages in the sites too; give what they print last."""
    opening = "import sys\nsys.path[:0] = sys.argv[1:]\nfrom nearfar.engines import choose_engines\n"
    command = [sys.executable, "-c", opening + program, *map(str, sites)]
    answered = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return answered.stdout.splitlines()[-1]


def asking(name: str) -> str:
    return (
        f"try: print(choose_engines({name!r}, 'cpu')[0].name)\n"
        "except Exception as error: print(f'{type(error).__name__}: {error}')\n"
    )


def test_ours_and_a_stranger_s_engine_enter_by_the_same_door() -> None:
    kinds = installed_engines()

    assert {"torch", "fake"} <= kinds.keys()


def test_an_engine_named_is_the_engine_chosen() -> None:
    [choice] = choose_engines("fake", "cpu")

    assert ("fake", "asked for") == (choice.name, choice.reason)
    assert installed_engines()["fake"] is choice.kind


def test_the_choice_opens_what_it_names() -> None:
    order = EngineOrder(folder=Path(), recipe=RECIPE, device="cpu", dtype="float32")

    engine = choose_engines("fake", "cpu")[0].kind.open(order)

    assert ("fake", 8) == (engine.info.name, engine.info.dim)


class _Kind:
    rank = 0

    def __init__(self, *, shares: bool) -> None:
        self.shares = shares

    def obstacle(self, device: Device) -> None:
        raise AssertionError(device)

    def open(self, order: EngineOrder) -> Engine:
        raise AssertionError(order)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([("openvino", False), ("torch", True)], ["torch", "openvino"]),
        ([("mlx", True), ("torch", True)], ["mlx", "torch"]),
        ([("openvino", False)], ["openvino"]),
        ([("torch", True)], ["torch"]),
    ],
)
def test_whoever_computes_a_question_once_goes_first_for_a_judge(
    there: list[tuple[str, bool]], expected: list[str]
) -> None:
    choices = [Choice(name=name, kind=_Kind(shares=shares), reason="here") for name, shares in there]

    found = prefer_sharing(choices)

    assert expected == [choice.name for choice in found]
    assert ("computed once" in found[0].reason) == (found[0].name != there[0][0])


def test_a_judge_and_only_a_judge_is_given_such_an_engine(bert: Path, tmp_path: Path) -> None:
    judge = write_judge(tmp_path, "qwen3-reranker")

    usual, asked, named = (
        find_model(ModelSettings(name=str(folder)), Settings(engine=engine, device="cpu")).choices[0].name
        for folder, engine in ((bert, "auto"), (judge, "auto"), (judge, ENGINES[-1]))
    )

    assert usual == choose_engines("auto", "cpu")[0].name
    assert asked in {"torch", "mlx"}
    assert named == ENGINES[-1]


def test_the_automatic_choice_is_the_highest_rank_that_can_run_here() -> None:
    ranks = {name: kind.rank for name, kind in installed_engines().items() if kind.obstacle("auto") is None}

    choice, *_ = choose_engines("auto", "auto")

    assert max(ranks, key=lambda name: ranks[name]) == choice.name
    assert choice.reason.endswith("first that can run here")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_automatic_choice_never_is_the_fake(device: str) -> None:
    choices = choose_engines("auto", device)  # type: ignore[arg-type]  # two of Device's words

    assert "fake" not in {choice.name for choice in choices}


def test_an_unknown_engine_is_refused_with_the_ones_there_are() -> None:
    there_are = ", ".join(sorted(installed_engines()))

    with pytest.raises(EngineUnavailable) as refused:
        choose_engines("tensorflow", "cpu")

    assert f"engine 'tensorflow' doesn't exist here; there are: {there_are}" == str(refused.value)


def test_a_named_engine_that_cannot_run_is_refused_and_not_replaced() -> None:
    with pytest.raises(EngineUnavailable) as refused:
        choose_engines("fake", "cuda")

    assert str(refused.value) == "engine 'fake': the fake has no cuda; use cpu"


@pytest.mark.parametrize("package", ["torch", "transformers", "safetensors"])
def test_without_its_packages_the_torch_engine_says_how_to_install_them(package: str) -> None:
    hidden = f"sys.modules[{package!r}] = None\n"  # what Python itself writes there for a package that isn't

    said = answer_of(hidden + asking("torch"))

    assert f"""EngineUnavailable: engine 'torch': {package} not installed; pip install "nearfar[torch]\"""" == said


def test_where_no_engine_can_run_each_one_s_obstacle_is_told() -> None:
    hidden = "for name in ('torch', 'mlx', 'openvino'): sys.modules[name] = None\n"

    said = answer_of(hidden + asking("auto"))

    assert said.startswith("EngineUnavailable: no engine can run here (")
    assert """not torch: torch not installed; pip install "nearfar[torch]\"""" in said


def test_choosing_imports_nothing_heavy() -> None:
    heavy = answer_of(
        "choose_engines('auto', 'cpu')\n"
        "print({'torch', 'transformers', 'safetensors', 'mlx', 'openvino', 'sentence_transformers'} & {*sys.modules})"
    )

    assert heavy == "set()"


@pytest.fixture
def broken_plugin(tmp_path: Path) -> Path:
    """Lay out a stranger's package whose engine can't be imported."""
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[nearfar.engines]\nbroken = no_such_module_anywhere:kind\n")
    return tmp_path


def test_a_stranger_s_broken_engine_does_not_keep_another_from_running(broken_plugin: Path) -> None:
    said = answer_of(asking("torch"), broken_plugin)

    assert said == "torch"


def test_a_stranger_s_broken_engine_is_refused_in_a_sentence(broken_plugin: Path) -> None:
    said = answer_of(asking("broken"), broken_plugin)

    assert said.startswith("EngineUnavailable: engine 'broken': ")
