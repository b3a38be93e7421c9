"""Checkpoints of every kind, on every engine: the libraries' numbers, or a refusal with a way out.

``make test`` tries some of each kind; ``make parity`` tries all, and writes the manual's page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import forked_subprocess
import pytest
from conftest import ENGINES
from parity_cases import CASES
from parity_cases.known import OTHER_VERSIONS
from parity_kinds import kinds
from parity_outcomes import PAGE, PINNED, decided, expected, fault, known, page
from parity_run import NO_REFERENCE, NotWritten, run

from nearfar.serving.verification import reference_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

# What `make test` tries: each kind of comparison, tokenizer and file at least once.
SOME: tuple[str, ...] = (
    *("albert", "bert_rank_types", "bert_2_labels", "deberta_nli", "ibert_no_limit", "modernbert_rank_mean", "mpnet"),
    *("xlm_roberta", "xlnet_rank", "convbert", "falcon_alibi", "gemma3_bidirectional", "lfm2", "llama_llama3"),
    *("llama_over_positions", "mistral_window", "qwen3_left", "opt_wmean_left", "granite_without_steps"),
    *("rank_qwen2_padding_is_end", "rank_saved_by_6", "rank_no_architectures", "labels_integers", "judge_renamed"),
    *("splade", "colbert_expansion", "pooling_6", "dense_prelu", "step_layer_norm", "old_folder_of_the_transformer"),
    *("saved_by_6_truncate_dim", "saved_by_6_with_chat", "prompts_by_role", "similarity_dot"),
    *(
        "sbert_tokenizer_args_left",
        "format_pickle",
        "tokens_added_decoder",
        "tokens_add_eos_mean",
        "weights_shards_beside",
    ),
    "quantized_gptq",
)
# What the conversion to the other engines has changed before.
SOME_ON: dict[str, tuple[str, ...]] = {
    "openvino": (
        *("albert", "modernbert_rank_mean", "xlnet_rank", "falcon_alibi", "lfm2", "mistral_window", "splade"),
        *("gemma3_bidirectional", "dense_prelu"),
    ),
    "mlx": (
        *(
            "albert",
            "modernbert_rank_mean",
            "gemma3_bidirectional",
            "lfm2",
            "llama_llama3",
            "rank_qwen2_padding_is_end",
        ),
        *("colbert_expansion", "pooling_6", "dense_prelu", "quantized_gptq", "weights_shards_beside", "judge_renamed"),
    ),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try some cases, or all with ``--parity all``."""
    if {"name", "engine"} <= {*metafunc.fixturenames}:
        each = {"torch": SOME} | SOME_ON
        if metafunc.config.getoption("--parity") == "all":
            each = dict.fromkeys(ENGINES, tuple(CASES))
        metafunc.parametrize(["engine", "name"], [(engine, name) for engine in ENGINES for name in each[engine]])


@pytest.fixture(autouse=True)
def _forked_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_process, "subprocess", forked_subprocess)


@pytest.mark.filterwarnings("ignore")  # the libraries warn of what these folders are made to have
async def test_a_checkpoint_is_equal_or_refused(
    name: str, engine: str, tmp_path: Path, pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    if not PINNED and name in OTHER_VERSIONS:
        pytest.skip(OTHER_VERSIONS[name])
    size = "all" if pytestconfig.getoption("--parity") == "all" else "few"
    try:
        outcome = await run(name, engine, tmp_path, size)
    except NotWritten as error:
        if PINNED:
            raise
        pytest.skip(f"these versions can't write it: {error}")
    if not PINNED and NO_REFERENCE in outcome.detail:
        pytest.skip(f"these versions can't read it: {outcome.detail}")
    record_property("parity", (name, engine, outcome.result, outcome.detail))

    wrong = fault(name, engine, outcome)

    if wrong and known(name, engine):
        pytest.xfail(f"{known(name, engine)}: {wrong}")
    assert not wrong


def test_every_case_has_an_expected_outcome() -> None:
    assert [*CASES] == [*expected()]
    assert not {*SOME} - {*CASES}


def test_every_difference_is_a_decision_or_a_known_fault() -> None:
    for name, cells in expected().items():
        for engine, cell in zip(("torch", "openvino", "mlx"), cells, strict=True):
            assert cell in {"equal", "decided", "known"} or cell.startswith("refused: ")
            assert cell != "known" or known(name, engine)
            assert cell != "decided" or decided(name)


def test_the_manual_s_page_is_of_the_outcomes() -> None:
    assert page() == PAGE.read_text(encoding="utf-8")


def test_every_kind_of_difference_has_a_case_and_those_like_it() -> None:
    assert not [kind for kind, names in kinds().items() if not names]
