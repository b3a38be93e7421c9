"""What rows begin with alike is computed once: in few forwards, with the numbers of each row by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch
from checkpoints import write_files, write_transformer
from conftest import ENGINES
from llm_reranker_models import DOCUMENTS, QUERY, RERANKERS, open_llm_reranker, write_llm_reranker
from texts import varied_texts

from nearfar.engines.base import OpenRequest
from nearfar.engines.common.prefixes import MIN_PREFIX_TOKENS, PrefixGroup, group_by_prefix, token_costs
from nearfar.engines.selection import installed_engines
from nearfar.engines.torch.attention import MaskPattern, Run
from nearfar.engines.torch.packing import pack as pack_rows
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.queue.batch import QueuedRequest
from nearfar.serving.queue.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nearfar.engines.base import Engine

SHARING = [engine for engine in ("torch", "mlx") if engine in ENGINES]
HUNDRED = [f"{text[:90]} {number}" for number, text in enumerate(varied_texts(100))]


def row(*ids: int) -> Row:
    return Row([*ids], None, len(ids), 0)


def made_up(head: int, own: Sequence[int], seed: int = 0) -> list[Row]:
    """Make rows of a common head and so many ids of their own."""
    numbers = np.random.default_rng(seed)
    common = numbers.integers(4, 100, head).tolist()
    return [row(*common, *numbers.integers(4, 100, length).tolist()) for length in own]


def count_tokens(engine: Engine) -> list[int]:
    """Note how many tokens each forward of the transformer is given."""
    seen: list[int] = []
    inner: Any = engine
    if engine.info.name == "torch":
        inner._model._base = Noting(inner._model._base, seen)
        return seen
    run = inner._network._run

    def noting(model: Any, ids: Any, *rest: Any, **named: Any) -> Any:
        seen.append(ids.size)
        return run(model, ids, *rest, **named)

    inner._network._run = noting
    return seen


class Noting(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module, seen: list[int]) -> None:
        super().__init__()
        self.inner, self.seen = inner, seen

    def forward(self, *, input_ids: torch.Tensor, **named: Any) -> Any:
        self.seen.append(input_ids.numel())
        return self.inner(input_ids=input_ids, **named)


class TestNumbers:
    @pytest.mark.parametrize("engine", SHARING)
    @pytest.mark.parametrize("judge", RERANKERS)
    def test_are_those_of_each_document_by_itself(self, judge: str, engine: str, tmp_path: Path) -> None:
        """A hundred documents: the head goes through the model once, in as few forwards as there are groups."""
        opened = open_llm_reranker(write_llm_reranker(tmp_path, judge), engine)
        assert opened.engine
        rows = opened.rows(HUNDRED)
        alone = np.concatenate([opened.engine.score([one]) for one in rows])
        seen = count_tokens(opened.engine)

        together = opened.engine.score(rows)

        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
        assert opened.engine.info.shares_prefixes
        [*heads, rest] = group_by_prefix(rows)
        assert len(heads) + (rest.length > 0) <= 3
        if engine == "torch":
            assert [sum(token_costs(rows))] == seen
            assert seen[0] < 0.9 * sum(len(one.ids) for one in rows)
        else:
            assert len(seen) <= 2 * len(group_by_prefix(rows))
            assert np.std(alone) > 0.1

    @pytest.mark.parametrize("engine", SHARING)
    def test_of_other_queries_are_their_own(self, engine: str, tmp_path: Path) -> None:
        """A batch may have rows of several requests, and rows that part from the others within the head."""
        opened = open_llm_reranker(write_llm_reranker(tmp_path, "qwen3-reranker"), engine)
        assert opened.engine
        queries = ("one question", "one question more", "another question altogether", "one questioN")
        rows = [one for query in queries for one in opened.tokens.encode_pairs(query, DOCUMENTS[-4:], None)]
        rows += [row(*one.ids[:at], one.ids[at] + 1, *one.ids[at + 1 :]) for at in (0, 1, 20, 40) for one in rows[:2]]

        together = opened.engine.score(rows)

        alone = np.concatenate([opened.engine.score([one]) for one in rows])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
        assert np.abs(together[16:18] - together[:2]).min() > 1e-3
        assert np.abs(together[:4] - together[4:8]).min() > 1e-3

    @pytest.mark.parametrize("head", [MIN_PREFIX_TOKENS, 30])
    @pytest.mark.parametrize("labels", [None, 1], ids=["embeds", "reranks"])
    @pytest.mark.parametrize(
        "family",
        [
            "qwen2",
            "qwen3",
            "llama",
            "mistral",
            "gemma",
            "gpt2",
            "gemma2",
            "gemma3_text",
            "lfm2",
            "bert",
            "modernbert",
            "mpnet",
        ],
    )
    def test_stay_in_every_family_shared_or_not(
        self, family: str, labels: int | None, head: int, tmp_path: Path
    ) -> None:
        """The windows of Mistral and Gemma 3 are 8 tokens here, so heads lie partly out of sight."""
        try:
            folder = write_transformer(tmp_path, family, labels=labels)
        except ValueError:
            pytest.skip("transformers has no such reranker")
        request = OpenRequest(folder=folder, recipe=read_recipe(folder), device="cpu", dtype="float32")
        engine = installed_engines()["torch"].open(request)
        run = engine.embed if labels is None else engine.score
        rows = made_up(head, (1, 9, 9, 3, 16, 1))

        together = run(rows)

        alone = np.concatenate([run([one]) for one in rows])
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
        causal = {"qwen2", "qwen3", "llama", "mistral", "gemma", "gpt2", "gemma3_text"}
        assert engine.info.shares_prefixes == (family in causal)

    def test_stay_where_more_than_the_last_token_counts(self, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path, "qwen3")
        modules = [
            {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for at, (kind, path) in enumerate((("Transformer", ""), ("Pooling", "1_Pooling")))
        ]
        write_files(folder, {"modules.json": modules, "1_Pooling/config.json": {"pooling_mode": "mean"}})
        request = OpenRequest(folder=folder, recipe=read_recipe(folder), device="cpu", dtype="float32")

        for name in SHARING:
            engine = installed_engines()[name].open(request)
            rows = made_up(20, (4, 9, 12))

            together = engine.embed(rows)

            np.testing.assert_allclose(together, np.concatenate([engine.embed([one]) for one in rows]), atol=1e-5)
            assert not engine.info.shares_prefixes

    def test_stay_where_rows_are_too_many_to_be_attended_at_once(self, tmp_path: Path) -> None:
        opened = open_llm_reranker(write_llm_reranker(tmp_path, "qwen3-reranker"), "torch")
        assert opened.engine
        rows = made_up(300, [7] * 20)
        run = Run(300, 20, 7, Run(0, 1, 300))

        together = opened.engine.score(rows)

        alone = np.concatenate([opened.engine.score([one]) for one in rows])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
        assert [13, 7] == [part.count for part in run.split()]

    def test_stay_with_tokens_that_fill_a_batch_up(self, tmp_path: Path) -> None:
        opened = open_llm_reranker(write_llm_reranker(tmp_path, "qwen3-reranker"), "torch")
        engine: Any = opened.engine
        rows = made_up(20, (7, 2, 2, 9))
        expected = engine.score(rows)

        engine._model._multiple = 32

        np.testing.assert_allclose(engine.score(rows), expected, rtol=0, atol=1e-4)


class TestGroups:
    def test_are_rows_that_begin_alike(self) -> None:
        a, b = made_up(20, (3, 4)), made_up(30, (5, 1, 2), seed=1)

        groups = group_by_prefix([a[0], b[0], row(1, 2), b[1], a[1], b[2]])

        assert sorted([(20, [0, 4]), (30, [1, 3, 5]), (0, [2])]) == sorted((g.length, sorted(g.rows)) for g in groups)

    def test_save_as_much_as_they_can(self) -> None:
        """Two requests of one model share its question's beginning, and each has more in common with itself."""
        start = list(range(20))
        one, other = [*start, 50, *range(30)], [*start, 60, *range(30)]
        rows = [row(*head, number) for head in (one, other) for number in range(5)]

        assert [(51, 5), (51, 5)] == [(group.length, len(group.rows)) for group in group_by_prefix(rows)]

        short = [row(*start, number) for number in range(10)]
        assert [(20, 10)] == [(group.length, len(group.rows)) for group in group_by_prefix(short)]

    def test_leave_each_row_a_token_of_its_own(self) -> None:
        [whole] = made_up(40, (0,))
        shorter = row(*whole.ids[:25])

        assert [PrefixGroup(length=24, rows=[1, 0])] == group_by_prefix([whole, shorter])
        assert [PrefixGroup(length=39, rows=[0, 1])] == group_by_prefix([whole, whole])

    def test_share_nothing_where_it_is_little_or_typed(self) -> None:
        little = made_up(MIN_PREFIX_TOKENS - 1, (4, 4))
        typed = [msgspec.structs.replace(one, type_ids=[1] * len(one.ids)) for one in made_up(30, (4, 4))]

        assert [PrefixGroup(length=0, rows=[0, 1])] == group_by_prefix(little)
        assert [PrefixGroup(length=0, rows=[0, 1])] == group_by_prefix(typed)
        assert [19, 19] == token_costs(little)

    def test_cost_their_head_once(self) -> None:
        assert 20 + 5 + 6 + 7 == sum(token_costs(made_up(20, (5, 6, 7))))

    def test_lie_behind_their_heads(self) -> None:
        rows = [row(1, 2, 3, 9), row(5), row(1, 2, 3, 7, 8), row(1, 2, 3, 6)]

        layout = pack_rows(rows, groups=[PrefixGroup(length=3, rows=[0, 2, 3]), PrefixGroup(length=0, rows=[1])])

        head = Run(0, 1, 3)
        assert [1, 2, 3, 9, 6, 7, 8, 5] == layout.ids.tolist()
        assert [0, 1, 2, 3, 3, 3, 4, 0] == layout.positions.tolist()
        assert [Run(3, 2, 1, head), Run(5, 1, 2, head), Run(7, 1, 1)] == layout.runs
        assert [head, *layout.runs] == layout.segments
        assert [0, 3, 2, 1] == layout.order

    def test_a_head_that_sees_what_comes_after_it_is_refused(self) -> None:
        """A window to both sides might hide that from a trial of few tokens."""
        near = MaskPattern(lambda _batch, _head, query, key: (query - key).abs() <= 2)

        with pytest.raises(TypeError, match="attend to those after them"):
            near.mask(Run(5, 2, 4, Run(0, 1, 5)), torch.device("cpu"))


@pytest.mark.anyio
async def test_a_request_s_batches_hold_as_many_rows_as_its_head_leaves_room_for() -> None:
    rows = made_up(60, [10] * 30)
    waiting = [Scheduler(210, None), Scheduler(210, None)]
    for shares, some in enumerate(waiting):
        some.add(QueuedRequest(rows, asyncio.get_running_loop().create_future(), shares_prefixes=bool(shares)))

    plain, shared = (len(some.next_batch(210)) for some in waiting)

    assert (3, 21) == (plain, shared)


def test_a_judge_s_question_is_the_head(tmp_path: Path) -> None:
    """All that stands before the document, the query too."""
    opened = open_llm_reranker(write_llm_reranker(tmp_path, "qwen3-reranker"), None)
    tokens = TextEncoder(opened.request.folder, opened.request.recipe)
    rows = tokens.encode_pairs(QUERY, ["x", "a", "fox"], None)
    [empty] = tokens.encode_pairs(QUERY, [""], None)

    [group] = group_by_prefix(rows)

    after = 20  # the tokens of the question's last text, and of the space before the document
    assert len(empty.ids) - after <= group.length <= len(empty.ids)
