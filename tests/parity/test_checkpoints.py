"""Checkpoints of every kind, on every engine: the libraries' numbers, or a refusal with a way out.

``make test`` tries some of each kind; ``make parity`` tries all, and writes the manual's page.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from conftest import ENGINES
from manual import ROOT
from parity_cases import CASES
from parity_outcomes import fault, known
from parity_run import NotWritten, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

# What `make test` tries: each kind of comparison, tokenizer and file at least once.
SOME = (
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
# The versions that the constraints pin: with them each case must be written.
PINNED = all(
    f"{package}=={version(package)}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().split()
    for package in ("transformers", "sentence-transformers", "tokenizers")
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try some cases, or all with ``--parity all``."""
    if {"name", "engine"} <= {*metafunc.fixturenames}:
        chosen = CASES if metafunc.config.getoption("--parity") == "all" else SOME
        metafunc.parametrize(["name", "engine"], [(name, engine) for name in chosen for engine in ENGINES])


@pytest.mark.filterwarnings("ignore")  # the libraries warn of what these folders are made to have
async def test_a_checkpoint_is_equal_or_refused(
    name: str, engine: str, tmp_path: Path, pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    size = "all" if pytestconfig.getoption("--parity") == "all" else "few"
    try:
        outcome = await run(name, engine, tmp_path, size)
    except NotWritten as error:
        if PINNED:
            raise
        pytest.skip(f"these versions can't write it: {error}")
    record_property("parity", (name, engine, outcome.result, outcome.detail))

    wrong = fault(name, engine, outcome)

    if wrong and known(name, engine):
        pytest.xfail(f"{known(name, engine)}: {wrong}")
    assert not wrong
