"""A pair with an empty text has the library's score; without any token it is refused, on every engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from checkpoints import write_transformer
from conftest import ENGINES
from parity_cases import CASES
from parity_reference import Sample, reference
from parity_run import serving

from nearfar.core.caller import ANONYMOUS
from nearfar.core.errors import EmptyInput
from nearfar.core.jobs import RankJob, ScoreJob

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

PAIRS = (("a question?", "the fox"), ("a question?", ""), ("a question?", " "), ("", "the fox"))
KINDS = ("rank_qwen2_padding_is_end", "roberta_rank", "judge_by_name")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_empty_text_of_a_pair_has_the_library_s_score(kind: str, tmp_path: Path) -> None:
    case = CASES[kind]
    folder = tmp_path / case.folder
    folder.mkdir()
    case.write(folder)
    queries, documents = zip(*PAIRS, strict=True)
    sample = Sample((), tuple(dict.fromkeys(queries)), tuple(dict.fromkeys(documents)))
    known = dict(zip(sample.pairs, reference(folder, case, sample)["logits"], strict=True))
    expected = [float(logit) for pair in PAIRS if (logit := known[pair]) is not None]

    for engine in ENGINES:
        async with serving(folder, engine, tmp_path / "cache", case.task, verify=False) as service:
            together = (await service.score(ScoreJob(model=None, pairs=PAIRS, raw_scores=True), ANONYMOUS)).scores
            jobs = [ScoreJob(model=None, pairs=(pair,), raw_scores=True) for pair in PAIRS]
            alone = [(await service.score(job, ANONYMOUS)).scores[0] for job in jobs]

        np.testing.assert_allclose(together, expected, atol=1e-4)
        np.testing.assert_allclose(alone, expected, atol=1e-4)


async def test_a_pair_without_a_token_is_refused_by_its_place(tmp_path: Path) -> None:
    """Qwen2's tokenizer adds nothing to an empty text."""
    folder = write_transformer(tmp_path / "model", "qwen2", labels=1)
    async with serving(folder, "torch", tmp_path / "cache", verify=False) as service:
        with pytest.raises(EmptyInput, match="the query and document 1 have no token this model knows"):
            await service.score(ScoreJob(model=None, pairs=(("", "the fox"), ("", "")), raw_scores=True), ANONYMOUS)
        ranked = await service.rank(RankJob(model=None, query="fox", documents=("the fox", "")), ANONYMOUS)
        assert 2 == len(ranked.results)
